"""Work that takes a while is told of."""

from llmbol_core.native import notices


def test_a_listener_is_told(monkeypatch):
    heard: list[str] = []
    monkeypatch.setattr(notices, "_listener", notices._listener)
    notices.tell("nobody hears this")
    notices.listen(heard.append)
    notices.tell("compiling")
    assert heard == ["compiling"]
