from __future__ import annotations

import os
import socket
import ssl
import stat

import pytest

from llmbol_core.distributed.security import Certificates, Role, issue, role_of, server_name
from llmbol_core.distributed.settings import SETTINGS, environment
from llmbol_core.distributed.state import Identity, StateDirectory
from llmbol_core.errors import ClusterError, NoCluster


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return issue(tmp_path_factory.mktemp("tls"))


def shake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[Role | None, Role | None]:
    """Let two contexts shake hands; return the roles that each side sees of the other."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    serving = server.wrap_socket(near, server_side=True, do_handshake_on_connect=False)
    asking = client.wrap_socket(
        far, server_hostname=server_name(Role.BROKER), do_handshake_on_connect=False
    )
    with serving, asking:
        pending = {serving, asking}
        while pending:
            for side in list(pending):
                try:
                    side.do_handshake()
                    pending.discard(side)
                except BlockingIOError:
                    pass
                except OSError as error:
                    if type(error).__name__ not in ("SSLWantReadError", "SSLWantWriteError"):
                        raise
        return role_of(serving.getpeercert()), role_of(asking.getpeercert())


def test_both_sides_learn_each_others_role(certificates):
    server = certificates.server_context(Role.BROKER)
    assert shake(server, certificates.client_context(Role.CLIENT)) == (Role.CLIENT, Role.BROKER)
    assert shake(server, certificates.client_context(Role.NODE)) == (Role.NODE, Role.BROKER)


@pytest.mark.parametrize("role", [Role.NODE, Role.CLIENT])
def test_nobody_else_can_pose_as_the_broker(certificates, role):
    with pytest.raises(OSError, match="certificate"):
        shake(certificates.server_context(role), certificates.client_context(Role.CLIENT))


def test_a_foreign_certificate_is_refused(certificates, tmp_path):
    other = issue(tmp_path).client_context(Role.CLIENT)
    with pytest.raises(OSError, match="certificate verify failed"):
        shake(certificates.server_context(Role.BROKER), other)


def test_keys_are_for_their_owner_only(certificates):
    for path in certificates.directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_good_certificates_are_kept_and_bad_ones_replaced(certificates, tmp_path):
    before = certificates.authority.read_bytes()
    certificates.ensure()
    assert certificates.authority.read_bytes() == before
    own = issue(tmp_path)
    own.key(Role.NODE).unlink()
    own.certificate(Role.NODE).write_bytes(b"damaged")
    own.ensure()
    own.server_context(Role.NODE)


def test_missing_certificates_are_named(tmp_path):
    with pytest.raises(ClusterError, match="no usable certificate for the role client"):
        Certificates(tmp_path).client_context(Role.CLIENT)


def test_a_state_directory_open_to_others_is_refused(tmp_path):
    state = StateDirectory(tmp_path / "state")
    state.prepare()
    assert {stat.S_IMODE(path.stat().st_mode) for path in [state.root, state.files]} == {0o700}
    state.root.chmod(0o755)
    with pytest.raises(ClusterError, match="open to other users"):
        state.prepare()


def test_the_lock_has_one_holder_and_the_system_releases_it(tmp_path):
    state = StateDirectory(tmp_path)
    assert not state.is_held()
    held = state.hold()
    assert state.is_held()
    with pytest.raises(ClusterError, match="already runs"):
        state.hold()
    os.close(held)
    assert not state.is_held()
    with pytest.raises(NoCluster, match="start one with: cluster start"):
        state.running()


def test_a_process_is_told_from_a_later_one_with_its_number():
    me = Identity.of(os.getpid())
    assert me.is_alive()
    assert not Identity(me.pid, me.started + 1).is_alive()


def test_the_state_directory_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("LLMBOL_STATE", str(tmp_path))
    assert StateDirectory.default().root == tmp_path
    monkeypatch.delenv("LLMBOL_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert StateDirectory.default().root == tmp_path / "llmbol"
    monkeypatch.delenv("XDG_STATE_HOME")
    for nowhere in ("", "~"):  # what expanduser leaves where nobody knows better
        monkeypatch.setenv("HOME", nowhere)
        with pytest.raises(ClusterError, match="LLMBOL_STATE"):
            StateDirectory.default()


def test_dask_understands_every_setting_as_it_was_meant(tmp_path):
    config = pytest.importorskip("dask.config")
    inherited = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "False", "PATH": "/bin"}
    variables = environment(tmp_path, inherited)
    read = config.collect_env(variables)
    for name, value in SETTINGS.items():
        assert config.get(name, config=read) == value, name
