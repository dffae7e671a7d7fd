"""A real cluster of two nodes: what goes wrong on purpose, and who is kept out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import llmbol_core
from llmbol_core import deploy
from llmbol_core.builtins import signature_of
from llmbol_core.distributed import control, wire
from llmbol_core.distributed.client import Client
from llmbol_core.distributed.excerpt import Excerpt
from llmbol_core.distributed.node import create_compute_node, local_nodes
from llmbol_core.distributed.report import Config, NodeStatus
from llmbol_core.distributed.security import Certificates, Role, issue
from llmbol_core.distributed.splitting import inference_tasks, pieces_of, stream
from llmbol_core.distributed.state import StateDirectory
from llmbol_core.distributed.store import CHUNK, FileStore, hash_file
from llmbol_core.distributed.task import FileRef, State, Task, create_task
from llmbol_core.distributed.worker import _Broker
from llmbol_core.errors import ClusterError, LinkError, TaskFailed, UsageError
from llmbol_core.vm.objectfile import write_module
from llmbol_core.vm.stackcode import parse_source
from tests.distributed.conftest import eventually, processes_of

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parent.parent.parent
SPECS = ROOT / "specs" / "programs"


def probe(id: str, seconds: float = 0.0, **options: Any) -> Task:
    return create_task(id, "probe", {"echo": id, "seconds": seconds}, **options)


def node_of(client: Client, id: str) -> NodeStatus:
    """Return the status of the node that a task runs on, once it does."""
    assert eventually(lambda: client.result(id).entry.state == State.RUNNING)
    name = client.result(id).entry.node
    return next(node for node in client.status().nodes if node.name == name)


def all_up(client: Client) -> bool:
    return eventually(lambda: client.status().nodes_up == len(client.status().nodes))


def test_tasks_come_back_with_their_results(client):
    ids = client.submit([probe(f"plain-{i}") for i in range(100)])
    assert all(entry.state == State.DONE for entry in client.wait(ids, 20))
    assert [client.result(id).value for id in ids] == ids
    assert {entry.node for entry in client.wait(ids)} == {"node-1", "node-2"}


def test_an_id_is_run_once_and_means_one_thing(client):
    client.submit([probe("once")])
    first = client.wait(["once"], 10)[0]
    client.submit([probe("once")])
    assert client.wait(["once"], 10)[0] == first
    with pytest.raises(UsageError, match="with other content was submitted before"):
        client.submit([probe("once", 0.5)])


def test_what_could_never_run_is_refused_at_once(client):
    with pytest.raises(UsageError, match="did you mean 'inference'"):
        client.submit([probe("never", capability="inferense")])
    with pytest.raises(UsageError, match="no task 'nothing' is known"):
        client.result("nothing")


def test_a_killed_node_costs_a_moment_but_no_task(client):
    ids = client.submit([probe(f"kill-{i}", 0.8) for i in range(4)])
    pid = node_of(client, "kill-0").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    entries = client.wait(ids, 30)
    assert [entry.state for entry in entries] == [State.DONE] * 4
    assert entries[0].attempts + entries[0].interruptions == 1
    assert all_up(client)


def test_time_outs_and_cancellation_free_the_node(client):
    assert all_up(client)
    client.submit([probe("slow", 60, timeout=0.3, max_retries=0), probe("unwanted", 60)])
    node_of(client, "unwanted")
    assert client.cancel(["unwanted"]) == ["unwanted"]
    assert client.wait(["slow", "unwanted"], 10)[1].state == State.CANCELLED
    with pytest.raises(TaskFailed, match=r"task slow: took longer than 0\.3 s"):
        assert client.result("slow").value
    assert all_up(client)
    assert client.cancel(["unwanted"]) == []
    client.submit([probe("after")])
    assert client.wait(["after"], 10)[0].state == State.DONE


def test_a_killed_broker_forgets_nothing(client, cluster):
    assert all_up(client)
    ids = client.submit([probe(f"broker-{i}", 0.3) for i in range(6)])
    client.wait(ids[:1], 20)
    os.kill(cluster.running().broker.pid, signal.SIGKILL)
    assert [entry.state for entry in client.wait(ids, 30)] == [State.DONE] * 6
    assert all_up(client)


def test_files_travel_by_content_and_are_fetched_in_pieces(client, cluster, tmp_path):
    path = tmp_path / "big"
    path.write_bytes(os.urandom(2 * CHUNK + 17))
    sha256, size = hash_file(path)
    with open(path, "rb") as file:
        client._send_pieces(file, sha256, size)
    # A node on another machine has its own cache, and only the channel.
    (tmp_path / "cache").mkdir()
    os.environ["LLMBOL_DOOR"] = cluster.running().address
    broker = _Broker(cluster)
    fetched = FileStore(tmp_path / "cache").fetch(sha256, partial(broker.read, "task", sha256))
    broker.close()
    del os.environ["LLMBOL_DOOR"]
    assert fetched.read_bytes() == path.read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from llmbol_core.nn import checkpoint

    path = tmp_path_factory.mktemp("model") / "small.gguf"
    checkpoint.save(llmbol_core.build_model("small", [4]).linear(4, 3).relu().build(), str(path))
    return path


@pytest.mark.parametrize("program", ["hello.s", "add.stack"])
def test_a_program_prints_there_what_it_prints_here(client, tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    source = SPECS / program
    module = parse_source(source.read_text(), str(source), signature_of)
    Path("program.dis").write_bytes(write_module(module))
    id = f"run-{program}"
    client.submit([create_task(id, "run", {"program": "program.dis"})])
    client.wait([id], 20)
    assert client.result(id).text == deploy.run_file("program.dis").stdout != b""


def test_a_program_that_is_none_fails_once_and_says_why(client, tmp_path):
    (tmp_path / "bad.dis").write_bytes(b"no program")
    client.submit([create_task("bad", "run", {"program": str(tmp_path / "bad.dis")})])
    entry = client.wait(["bad"], 20)[0]
    assert (entry.state, entry.attempts) == (State.FAILED, 1)
    assert entry.error.startswith("bad.dis: at byte 0")


def test_a_model_computes_there_what_it_computes_here(client, model):
    from llmbol_core.nn.checkpoint import load_for_inference

    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    expected = load_for_inference(str(model)).run(x)
    for number in range(4):
        payload = {"model": str(model), "input": x.tolist()}
        client.submit([create_task(f"infer-{number}", "inference", payload)])
    entries = client.wait([f"infer-{number}" for number in range(4)], 30)
    assert [entry.error for entry in entries] == [None] * 4
    assert all(np.array_equal(client.result(e.id).value, expected) for e in entries)
    # The weights came once, by their content.
    assert FileStore(client._state.files).has(hash_file(model)[0])


def test_a_large_input_is_worked_on_in_pieces_and_comes_back_in_order(client, model, tmp_path):
    from llmbol_core.nn.checkpoint import load_for_inference

    x = np.random.default_rng(0).normal(size=(150_000, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    whole = create_task("large", "inference", {"model": str(model), "input": tmp_path / "x.npy"})

    def results() -> Any:
        pieces = pieces_of(tmp_path / "x.npy", (4,))
        assert pieces is not None
        return [r.value for r in stream(client, inference_tasks(whole, pieces), pieces.count)]

    expected = load_for_inference(str(model)).run(x)
    before = set(client._state.files.iterdir())
    assert np.array_equal(np.concatenate(results()), expected)
    ids = client.expand(["large"])
    assert ids == [f"large.{n}" for n in range(1, len(ids) + 1)]
    ended = client.wait(ids)
    # The inputs were never copied, and asking again runs nothing again, wherever they are.
    stored = set(client._state.files.iterdir()) - before
    assert {path.name for path in stored} <= {hash_file(model)[0]}
    np.save(tmp_path / "copy.npy", x)
    (tmp_path / "copy.npy").rename(tmp_path / "x.npy")
    assert np.array_equal(np.concatenate(results()), expected)
    assert client.wait(ids) == ended
    with pytest.raises(UsageError, match="no task 'larg' is known"):
        client.expand(["larg"])


def pieces_as_tasks(id: str, model: Path, path: Path) -> list[Task]:
    pieces = pieces_of(path, (4,))
    assert pieces is not None
    return list(inference_tasks(create_task(id, "inference", {"model": str(model)}), pieces))


def test_files_are_lent_only_to_a_cluster_that_sees_them(cluster, tmp_path):
    assert cluster.is_here()
    assert not StateDirectory(tmp_path).is_here()
    # As if the directory were shared by another machine, whose processes we do not see.
    known = json.loads((cluster.root / "cluster.json").read_text())
    known["guardian"]["started"] += 1
    (tmp_path / "cluster.json").write_text(json.dumps(known))
    assert not StateDirectory(tmp_path).is_here()
    if os.geteuid() == 0:
        look = "import sys; from llmbol_core.distributed.state import *; "
        look += "print(StateDirectory(Path(sys.argv[1])).is_here())"
        words = [sys.executable, "-c", look, cluster.root]
        for apart, expected in (([], "True"), (["unshare", "--mount"], "False")):
            seen = subprocess.run(
                [*apart, *words], capture_output=True, text=True, check=False, cwd=ROOT
            )
            assert seen.returncode or seen.stdout.strip() == expected


def test_who_does_not_wait_may_change_the_input_afterwards(client, model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((100_000, 4), np.float32))
    ids = client.submit(pieces_as_tasks("kept", model, tmp_path / "x.npy"))
    (tmp_path / "x.npy").unlink()
    assert {entry.state for entry in client.wait(ids, 30)} == {State.DONE}
    stored = {path.name for path in client._state.files.iterdir()}
    first = client.pack(create_task("x", "inference", {"model": model, "input": [[0.0] * 4]}))
    assert stored
    assert first.files[0].sha256 in stored


def test_an_input_that_changes_before_it_is_read_is_no_input(client, model, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((100_000, 4), np.float32))
    (task,) = pieces_as_tasks("changed", model, tmp_path / "x.npy")[:1]
    packed = client.pack(task, lend=True)
    np.save(tmp_path / "x.npy", np.zeros((100_000, 4), np.float32))
    (entry,) = client.wait(client.submit_packed([packed]), 30)
    assert (entry.state, entry.attempts) == (State.FAILED, 1)
    assert entry.error == f"{tmp_path}/x.npy: the file was changed since it was submitted"


def test_only_the_input_of_a_model_can_lie_elsewhere(client, cluster):
    excerpt = Excerpt("/etc/hostname", 0, 1)
    file = FileRef("program", "p", excerpt.sha256(), 1, excerpt)
    with pytest.raises(UsageError, match="only a model's input can be an excerpt"):
        client.submit_packed([Task("elsewhere", "run", files=(file,))])


def test_a_machine_runs_its_modules_on_the_cluster(client, cluster, monkeypatch):
    monkeypatch.setenv("LLMBOL_STATE", str(cluster.root))
    code = llmbol_core.BytecodeLoader.create_module([0x00, 0x01, 0x05, 0xFF])
    with llmbol_core.create_vm(max_memory=1 << 20, enable_distributed=True) as vm:
        vm.load_module("m", code)
        assert vm.execute_distributed("m", "main", [], priority=1) == vm.execute("m", "main", [])
        assert asyncio.run(vm.execute_distributed_async("m", "main")) == 5
        with pytest.raises(LinkError, match="no module of this name"):
            vm.execute_distributed("n", "main")
        with pytest.raises(TaskFailed, match="no exported function 'mian'"):
            vm.execute_distributed("m", "mian")


def test_a_second_cluster_in_the_same_place_is_refused(cluster):
    with pytest.raises(ClusterError, match="already runs in"):
        control.start(cluster, Config(tuple(local_nodes(1))))


def test_nothing_listens_off_the_loopback(cluster):
    ports = [
        connection.laddr
        for pid in processes_of(cluster)
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    # The door, the scheduler, two workers; no web server.
    assert len(ports) == 4
    assert {address.ip for address in ports} == {"127.0.0.1"}


def test_everything_is_for_the_owner_only(cluster):
    for path in cluster.root.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def port_of(state: StateDirectory, role: str) -> int:
    """Return the port of the broker's door, of Dask's scheduler, or of a worker."""
    door = int(state.running().address.rpartition(":")[2])
    if role == "door":
        return door
    pid = state.running().broker.pid if role == "scheduler" else state.running().nodes[0].pid
    listening = {
        c.laddr.port
        for c in psutil.Process(pid).net_connections("inet")
        if c.status == psutil.CONN_LISTEN
    }
    (port,) = listening - {door}
    return int(port)


@pytest.mark.parametrize("server", ["door", "scheduler", "worker"])
def test_probes_without_a_certificate_get_nothing(client, cluster, server):
    port = port_of(cluster, server)
    for first_words in (b"GET / HTTP/1.0\r\n\r\n", os.urandom(200)):
        with socket.create_connection(("127.0.0.1", port), 5) as plain:
            plain.sendall(first_words)
            plain.settimeout(10)
            try:
                answer = plain.recv(1000)
            except ConnectionResetError:
                answer = b""
            # At most the alert of a failed handshake.
            assert len(answer) <= 7
    anonymous = ssl.create_default_context(cafile=str(Certificates(cluster.tls).authority))
    anonymous.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        anonymous.wrap_socket(plain, server_hostname="x") as stream,
    ):
        try:
            answer = stream.recv(1)
        except OSError:
            answer = b""
        assert answer == b""
    assert client.status().nodes_up == 2


def test_a_foreign_certificate_is_refused_in_plain_words(cluster, tmp_path):
    foreign = issue(tmp_path)
    address = cluster.running().address
    with pytest.raises(ClusterError, match="its certificate is from elsewhere"):
        wire.Connection(address, foreign, Role.CLIENT)
    # It may even know the authority: that does not make its own certificate any better.
    foreign.authority.write_bytes(Certificates(cluster.tls).authority.read_bytes())
    with pytest.raises(ClusterError, match="refused the certificate: it is from another cluster"):
        wire.Connection(address, foreign, Role.CLIENT)


def test_a_role_may_do_what_its_row_says_and_no_more(cluster):
    connection = wire.Connection(cluster.running().address, Certificates(cluster.tls), Role.NODE)
    for call in ("submit", "stop", "status", "cancel"):
        with pytest.raises(ClusterError, match="role node does not allow"):
            connection.call(call, {})
    with pytest.raises(UsageError, match=r"unknown request 'statsu' \(did you mean 'status'"):
        connection.call("statsu", {})
    connection.close()


async def ask_dask(state: StateDirectory, server: str, role: Role) -> object:
    """Ask one of the cluster's Dask servers for something that anybody in plain Dask may ask."""
    import distributed  # noqa: TID251 -- an intruder would

    certificates = Certificates(state.tls)
    security = distributed.Security(
        require_encryption=True,
        tls_ca_file=str(certificates.authority),
        tls_client_cert=str(certificates.certificate(role)),
        tls_client_key=str(certificates.key(role)),
    )
    arguments = security.get_connection_args("client")
    address = f"tls://127.0.0.1:{port_of(state, server)}"
    peer = distributed.rpc(address, connection_args=arguments, timeout=1)
    async with peer as known:
        return await asyncio.wait_for(known.versions(), 5)


@pytest.mark.parametrize(
    ("server", "role", "answer"),
    [
        ("scheduler", Role.CLIENT, OSError),
        ("scheduler", Role.NODE, PermissionError),
        ("worker", Role.CLIENT, OSError),
        ("worker", Role.NODE, OSError),
    ],
)
def test_only_the_broker_can_have_dask_do_something(client, cluster, server, role, answer):
    with pytest.raises(answer):
        asyncio.run(ask_dask(cluster, server, role))
    assert isinstance(asyncio.run(ask_dask(cluster, server, Role.BROKER)), dict)
    assert client.status().nodes_up == 2


def test_nodes_can_be_added_while_it_runs(client):
    client.add_node(create_compute_node("extra", capabilities=["training"]))
    client.submit([probe("trained", capability="training")])
    assert client.wait(["trained"], 20)[0].node == "extra"
    with pytest.raises(UsageError, match="there already"):
        client.add_node(create_compute_node("extra"))


def test_nodes_can_be_spared_emptied_and_removed(client):
    assert all_up(client)
    client.cordon("extra")
    assert next(n for n in client.status().nodes if n.name == "extra").state == "cordoned"
    client.submit([probe("spared", capability="training")])
    client.submit([probe(f"busy-{i}", 0.4) for i in range(4)])
    client.drain("node-1")
    # What it had is done, and nothing new came.
    (node,) = [n for n in client.status().nodes if n.name == "node-1"]
    assert (node.state, node.running) == ("cordoned", 0)
    assert client.result("spared").entry.state == State.QUEUED
    client.cordon("node-1", False)
    client.cordon("extra", False)
    client.wait(["spared", *(f"busy-{i}" for i in range(4))], 20)
    client.submit([probe("moved", 0.5, capability="training")])
    assert node_of(client, "moved").name == "extra"
    client.add_node(create_compute_node("other", capabilities=["training"]))
    client.remove_node("extra")
    assert [n.name for n in client.status().nodes] == ["node-1", "node-2", "other"]
    assert client.wait(["moved"], 20)[0].node == "other"
    with pytest.raises(UsageError, match="no node is named 'extr'"):
        client.cordon("extr")
    client.submit([probe("long", 30, capability="training")])
    node_of(client, "long")
    with pytest.raises(ClusterError, match="tasks still run on node other after 0"):
        client.drain("other", 0.1)
    client.cancel(["long"])
    client.remove_node("other")
    events = [(event.subject, event.what) for event in client.metrics().events]
    assert ("extra", "cordoned") in events
    assert ("extra", "removed") in events


def test_what_happened_lately_is_told(client):
    client.wait(client.submit([probe(f"lately-{i}") for i in range(50)]), 20)
    assert eventually(lambda: sum(client.metrics().throughput) >= 50, 3)
    metrics = client.metrics()
    assert len(metrics.throughput) == 60
    assert metrics.rate > 0
    assert 0 < metrics.p50_ms <= metrics.p90_ms <= metrics.p99_ms
    assert 0 <= client.status().overhead < 100


def test_many_threads_can_share_a_client(client):
    answers = {}

    def work(number):
        client.submit([probe(f"thread-{number}")])
        client.wait([f"thread-{number}"], 20)
        answers[number] = client.result(f"thread-{number}").value

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: f"thread-{n}" for n in range(8)}


def test_a_dead_guardian_takes_everything_with_it_and_leaves_room_for_another(cluster):
    with Client(cluster) as client:
        client.submit([probe("busy", 60)])
        node_of(client, "busy")
    running = cluster.running()
    os.kill(running.guardian.pid, signal.SIGKILL)
    os.kill(running.broker.pid, signal.SIGKILL)
    assert eventually(lambda: not processes_of(cluster), 2)
    assert not cluster.is_held()
    control.start(cluster, Config(tuple(local_nodes(1))))
    with Client(cluster) as client:
        assert client.result("once").value == "once"


def test_one_that_is_only_starting_can_be_stopped(tmp_path):
    state = StateDirectory(tmp_path / "s")
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(control.start, state, Config(tuple(local_nodes(2))))
        assert eventually(state.is_held)
        control.stop(state)
        error = start.exception()
        # Unless they were up just before.
        assert error is None or "stopped before its nodes were up" in str(error)
    assert eventually(lambda: not processes_of(state), 1)


@pytest.mark.parametrize("module", ["broker", "worker"])
def test_a_process_whose_parent_died_before_it_looked_ends(module):
    dead = subprocess.run(
        [sys.executable, "-m", f"llmbol_core.distributed.{module}"],
        env={**os.environ, "LLMBOL_PARENT": "4194305", "PYTHONPATH": str(ROOT)}, timeout=20,
        check=False, stdin=subprocess.PIPE,
    )  # fmt: skip
    assert dead.returncode == -signal.SIGKILL


def test_stop_leaves_nothing_behind(cluster):
    control.stop(cluster)
    assert eventually(lambda: not processes_of(cluster), 1)
    assert cluster.read() is None
    assert not list(Path(cluster.scratch).glob("task@*"))
