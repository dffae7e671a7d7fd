"""The digest of a package: any change of its text changes it."""

from llmbol_core.native.identity import text_of


def digest_of(folder):
    text_of.cache_clear()
    return text_of(str(folder), ("../other.py",))


def test_a_digest_covers_all_modules_of_a_package_and_other_files(tmp_path):
    package = tmp_path / "package"
    paths = [package / "a.py", package / "part" / "b.py", tmp_path / "other.py"]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text("one")
    seen = {digest_of(package)}
    for path in paths:
        path.write_text("two")
        seen.add(digest_of(package))
    assert len(seen) == 4
    (package / "notes.txt").write_text("no module")
    assert digest_of(package) in seen
