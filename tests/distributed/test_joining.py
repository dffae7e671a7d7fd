"""A cluster with guests: nodes and clients that came by an invitation, and those who may not."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbol_core import build_model
from llmbol_core.distributed import agent, control, wire
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.invitations import Bundle, Invitations
from llmbol_core.distributed.node import local_nodes
from llmbol_core.distributed.report import Config, NodeStatus
from llmbol_core.distributed.security import Certificates, Role, sign
from llmbol_core.distributed.splitting import inference_tasks, pieces_of
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.store import FileStore
from llmbol_core.distributed.task import FileRef, State, Task, create_task
from llmbol_core.errors import ClusterError, NoCluster
from llmbol_core.nn import checkpoint
from tests.distributed.conftest import eventually, processes_of

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent
Join = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def cluster(state: StateDirectory) -> StateDirectory:
    """A running cluster of one node."""
    control.start(state, Config(tuple(local_nodes(1, ["inference"]))))
    return state


def invite(cluster: StateDirectory, role: str = "node", seconds: float = 600) -> Bundle:
    return Invitations(cluster).invite(role, seconds, cluster.running().address)


@pytest.fixture
def join(cluster: StateDirectory, tmp_path: Path) -> Iterator[Join]:
    """Return a function that starts an agent as another machine would."""
    agents = []

    def start(bundle: Bundle, name: str, *words: str) -> subprocess.Popen[bytes]:
        path = tmp_path / f"{bundle.id}.json"
        path.write_text(bundle.text())
        command = [sys.executable, "-c", "from llmbol_cli.cluster import main; main()", "node"]
        agents.append(
            subprocess.Popen(
                [*command, "--join", path, "--name", name, *words],
                stderr=subprocess.PIPE,
                env={**os.environ, "LLMBOL_STATE": str(tmp_path / "far"), "PYTHONPATH": str(ROOT)},
            )
        )
        return agents[-1]

    yield start
    for process in agents:
        process.kill()
        process.communicate()


def lent_piece(folder: Path) -> tuple[Task, Any]:
    """Return a task on the first piece of a large file, for the node elsewhere, and its result."""
    path = str(folder / "small.gguf")
    checkpoint.save(build_model("small", [4]).linear(4, 3).relu().build(), path)
    x = np.random.default_rng(0).normal(size=(100_000, 4)).astype(np.float32)
    np.save(folder / "x.npy", x)
    pieces = pieces_of(folder / "x.npy", (4,))
    assert pieces is not None
    whole = create_task("lent", "inference", {"model": path}, capability="special")
    task = next(inference_tasks(whole, pieces))
    excerpt = task.payload["input"].content
    rows = (excerpt.stop - excerpt.start) // 16
    return task, checkpoint.load_for_inference(path).run(x[:rows])


def node(client: Client, name: str) -> NodeStatus:
    return next(node for node in client.status().nodes if node.name == name)


def is_up(client: Client, name: str) -> bool:
    return any(n.name == name and n.state == "up" for n in client.status().nodes)


def test_a_node_joins_works_is_replaced_and_leaves(client, cluster, join, tmp_path):
    process = join(invite(cluster), "far", "--capabilities", "special")
    assert eventually(lambda: is_up(client, "far"))
    (tmp_path / "program").write_bytes(b"no program")
    (tmp_path / "input").write_bytes(b"only for this task")
    payload = {"program": str(tmp_path / "program"), "inputs": [str(tmp_path / "input")]}
    client.submit([create_task("there", "run", payload, capability="special")])
    assert client.wait(["there"], 20)[0].node == "far"
    # The file is on that machine now, once.
    (home,) = (tmp_path / "far" / "joined").iterdir()
    assert FileStore(home / "files").has(client._hash(tmp_path / "program")[0])
    assert not FileStore(home / "files").has(client._hash(tmp_path / "input")[0])
    assert all(path.stat().st_mode & 0o077 == 0 for path in home.rglob("*"))
    # What is lent here is sent to it.
    (task, expected) = lent_piece(tmp_path)
    client.wait(client.submit_packed([client.pack(task, lend=True)]), 20)
    result = client.result(task.id)
    assert (result.entry.node, result.entry.error) == ("far", None)
    assert np.array_equal(result.value, expected)
    # A task that takes too long is ended there too.
    client.submit([
        create_task("slow", "probe", {"seconds": 60}, capability="special", timeout=0.3,
                    max_retries=0),
    ])  # fmt: skip
    assert client.wait(["slow"], 20)[0].state == State.FAILED
    assert eventually(lambda: is_up(client, "far"))
    # The agent sees to a process that dies.
    pid = node(client, "far").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: is_up(client, "far") and node(client, "far").pid != pid)
    process.terminate()
    assert process.wait(10) == 0
    assert eventually(lambda: "far" not in [n.name for n in client.status().nodes], 5)
    assert not processes_of(StateDirectory(home))


@pytest.mark.slow
def test_two_with_one_name_get_two(client, cluster, join):
    bundle = invite(cluster)
    one, other = join(bundle, "twin"), join(bundle, "twin")
    assert eventually(lambda: is_up(client, "twin") and is_up(client, "twin-2"))
    one.terminate()
    other.terminate()
    assert [one.wait(10), other.wait(10)] == [0, 0]


def test_a_node_joins_again_when_the_broker_was_killed(client, cluster, join):
    join(invite(cluster), "again")
    assert eventually(lambda: is_up(client, "again"))
    os.kill(cluster.running().broker.pid, signal.SIGKILL)
    assert eventually(lambda: is_up(client, "again") and is_up(client, "node-1"))


@pytest.mark.slow
def test_an_agent_that_is_killed_takes_its_node_along(client, cluster, join, tmp_path):
    process = join(invite(cluster), "doomed")
    assert eventually(lambda: is_up(client, "doomed"))
    client.submit([create_task("rescued", "probe", {"seconds": 0.5, "echo": 1})])
    process.kill()
    (home,) = (tmp_path / "far" / "joined").iterdir()
    assert eventually(lambda: not processes_of(StateDirectory(home)), 3)
    assert client.wait(["rescued"], 20)[0].state == State.DONE
    client.remove_node("doomed")


def test_revocation_ends_a_visit_at_once(client, cluster, join, tmp_path):
    bundle = invite(cluster)
    process = join(bundle, "visitor")
    assert eventually(lambda: is_up(client, "visitor"))
    Invitations(cluster).revoke(bundle.id)
    assert eventually(lambda: "visitor" not in [n.name for n in client.status().nodes], 3)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 1 or b"no more use" in told
    second = join(bundle, "visitor")
    assert f"the invitation {bundle.id} was revoked" in second.communicate(timeout=10)[1].decode()
    assert second.returncode == 1


@pytest.mark.slow
def test_a_late_guest_is_told_that_it_is_too_late(cluster, join):
    bundle = invite(cluster, seconds=1)
    time.sleep(max(0, bundle.expires - time.time()) + 1)
    process = join(bundle, "late")
    assert b"refused the certificate: it has expired" in process.communicate(timeout=10)[1]
    assert process.returncode == 1


def test_an_invitation_for_a_node_is_good_for_nothing_else(cluster, tmp_path):
    bundle = invite(cluster)
    certificates = Certificates(tmp_path / "tls")
    bundle.install(certificates, Role.INVITED)
    for call in ("submit", "status", "fetch", "join", "stop"):
        connection = wire.Connection(bundle.address, certificates, Role.INVITED)
        with pytest.raises(ClusterError, match="role invited-node does not allow"):
            connection.call(call, {})
        connection.close()


def test_a_client_elsewhere_is_one_like_any_until_its_time_is_up(client, cluster, tmp_path):
    bundle = invite(cluster, "client")
    path = tmp_path / "client.json"
    path.write_text(bundle.text())
    far = StateDirectory(tmp_path / "far")
    agent.connect(str(path), far)
    with Client(far) as guest:
        guest.submit([create_task("from-far", "probe", {"echo": [1]})])
        guest.wait(["from-far"], 20)
        assert guest.result("from-far").value == [1]
        # It may not have files read that it cannot read itself.
        excerpt = Excerpt("/etc/hostname", 0, 1)
        file = FileRef("input", "x", excerpt.sha256(), 1, excerpt)
        with pytest.raises(ClusterError, match="an invitation lends no files of this host"):
            guest.submit_packed([Task("spy", "inference", files=(file,))])
        with pytest.raises(ClusterError, match="is for the cluster at"):
            control.start(far, Config(tuple(local_nodes(1))))
        Invitations(cluster).revoke(bundle.id)
        with pytest.raises(ClusterError, match="was revoked"):
            guest.status()
    with Client(far) as guest, pytest.raises(ClusterError, match="was revoked"):
        guest.status()
    far.forget_remote()
    with Client(far) as guest, pytest.raises(NoCluster):
        guest.status()
    assert is_up(client, "node-1")


@pytest.mark.parametrize("role", [Role.NODE, Role.INVITED, Role.CLIENT])
def test_certificates_that_expired_open_nothing(client, cluster, tmp_path, role):
    pem, key = sign(Certificates(cluster.tls), role, "node-00000000", -1)
    certificates = Certificates(tmp_path)
    (tmp_path / "authority.pem").write_bytes(Certificates(cluster.tls).authority.read_bytes())
    certificates.certificate(role).write_text(pem)
    certificates.key(role).write_text(key)
    with pytest.raises(ClusterError, match="refused the certificate: it has expired"):
        wire.Connection(cluster.running().address, certificates, role)
    # Dask's own servers do not let it in either.
    context = certificates.client_context(role)
    context.check_hostname = False
    for port in dask_ports(cluster):
        plain = socket.create_connection(("127.0.0.1", port), 5)
        with context.wrap_socket(plain) as stream:
            try:
                answer = stream.recv(1)
            except (ssl.SSLError, ConnectionError):
                answer = b""
            assert answer == b""
    assert is_up(client, "node-1")


def dask_ports(cluster: StateDirectory) -> list[int]:
    """Return the ports of the scheduler and the workers."""
    import psutil

    door = int(cluster.running().address.rpartition(":")[2])
    connections = [
        connection
        for pid in processes_of(cluster)
        for connection in psutil.Process(pid).net_connections("inet")
    ]
    listening = {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}
    return sorted(listening - {door})


def test_a_scan_from_another_network_finds_nothing(client, cluster):
    """Who shares no network with us but a cable sees no open port, on any of our addresses."""
    if os.geteuid() or not all(map(shutil.which, ("ip", "unshare"))):
        pytest.skip("needs root and network namespaces")
    ports = [*dask_ports(cluster), int(cluster.running().address.rpartition(":")[2])]
    name = f"lb{os.getpid() % 100000}"
    made = subprocess.run(
        ["sh", "-ec", f"""
         ip netns add {name}
         ip link add {name}a type veth peer name {name}b netns {name}
         ip addr add 10.213.77.1/30 dev {name}a && ip link set {name}a up
         ip -n {name} addr add 10.213.77.2/30 dev {name}b
         ip -n {name} link set {name}b up && ip -n {name} link set lo up"""],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        if made.returncode:
            pytest.skip(f"no network namespace can be made: {made.stderr.strip()}")
        with socket.create_server(("10.213.77.1", 0)) as control_server:
            known = control_server.getsockname()[1]
            probe = (
                "import socket, sys\n"
                "for word in sys.argv[1:]:\n"
                "    for host in ('10.213.77.1', '127.0.0.1'):\n"
                "        with socket.socket() as s:\n"
                "            s.settimeout(2)\n"
                "            if s.connect_ex((host, int(word))) == 0: print(word)\n"
            )
            scan = [sys.executable, "-c", probe, str(known), *map(str, ports)]
            found = subprocess.run(
                ["ip", "netns", "exec", name, *scan], capture_output=True, text=True, check=True
            )
    finally:
        subprocess.run(["ip", "link", "del", f"{name}a"], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    # The scan works: it finds the one port that was opened for it.
    assert found.stdout.split() == [str(known)]
    assert is_up(client, "node-1")
