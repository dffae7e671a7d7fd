from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml  # noqa: TID251 -- what is printed for Kubernetes is YAML

from llmbol_core.distributed.invitations import Bundle, Invitations
from llmbol_core.distributed.rendering import RENDERERS, Plan, render
from llmbol_core.distributed.report import place
from llmbol_core.distributed.security import Role, issue
from llmbol_core.distributed.state import StateDirectory, write_private
from llmbol_core.errors import ClusterError, FileError, UsageError
from tests.conftest import running


@pytest.fixture
def home(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "s")
    state.prepare()
    issue(state.tls)
    return state


def expire(home: StateDirectory, id: str) -> None:
    """Let an invitation have ended a second ago."""
    path = home.root / "invitations.json"
    rows = json.loads(path.read_bytes())
    for row in rows:
        if row["id"] == id:
            row["expires"] = time.time() - 1
    write_private(path, json.dumps(rows).encode())


def test_an_invitation_lasts_until_it_expires_or_is_revoked(home):
    invitations = Invitations(home)
    short = invitations.invite("client", 60, "h:1")
    long = invitations.invite("node", 3600, "h:1")
    # Another process looks at the same file.
    seen = Invitations(home)
    assert [(i.role, i.state) for i in seen.all()] == [("client", "open"), ("node", "open")]
    assert seen.refusal(short.id, Role.CLIENT) is None
    expire(home, short.id)
    assert seen.refusal(short.id, Role.CLIENT) == f"the invitation {short.id} has expired"
    assert seen.refusal(long.id, Role.INVITED) is None
    invitations.revoke(long.id)
    assert seen.refusal(long.id, Role.NODE) == f"the invitation {long.id} was revoked"
    assert [i.state for i in seen.all()] == ["expired", "revoked"]
    assert seen.refusal("node-00000000", Role.NODE) == "the invitation node-00000000 is not known"
    assert seen.refusal(None, Role.CLIENT) is None


def test_nothing_is_revoked_where_nobody_was_invited(tmp_path):
    with pytest.raises(UsageError, match="no invitation 'node-1' is known"):
        Invitations(StateDirectory(tmp_path / "none")).revoke("node-1")
    assert not (tmp_path / "none").exists()


def test_a_node_that_came_in_time_may_stay(home):
    invitations = Invitations(home)
    short = invitations.invite("node", 60, "h:1")
    expire(home, short.id)
    assert invitations.refusal(short.id, Role.INVITED) is not None
    assert invitations.refusal(short.id, Role.NODE) is None


def test_a_damaged_list_lets_nobody_in(home):
    invitations = Invitations(home)
    bundle = invitations.invite("client", 60, "h:1")
    (home.root / "invitations.json").write_text("[{")
    assert Invitations(home).refusal(bundle.id, Role.CLIENT) == "the invitations cannot be read"
    with pytest.raises(ClusterError, match="no list of invitations"):
        invitations.all()


def test_a_certificate_ends_with_its_invitation(home):
    from cryptography import x509  # noqa: TID251 -- reads what was made

    bundle = Invitations(home).invite("client", 60, "h:1")
    made = x509.load_pem_x509_certificate(bundle.certificate.encode())
    left = made.not_valid_after_utc - dt.datetime.now(dt.UTC)
    assert 50 < left.total_seconds() <= 61


@pytest.mark.parametrize(
    ("role", "seconds", "why"),
    [
        ("nod", 60, "did you mean 'node'"),
        ("broker", 60, "nobody can be invited as 'broker'"),
        ("node", 0, "expected 1 s to 825 d"),
        ("node", 1e12, "expected 1 s to 825 d"),
    ],
)
def test_odd_invitations_are_refused(home, role, seconds, why):
    with pytest.raises(UsageError, match=why):
        Invitations(home).invite(role, seconds, "h:1")
    assert Invitations(home).all() == []


def test_without_the_authoritys_key_nobody_can_be_invited(home):
    (home.tls / "authority-key.pem").unlink()
    with pytest.raises(ClusterError, match="no authority to invite with: no such file"):
        Invitations(home).invite("node", 60, "h:1")


def test_only_what_invite_wrote_is_an_invitation(home, tmp_path):
    bundle = Invitations(home).invite("node", 60, "h:1")
    path = tmp_path / "node.json"
    path.write_text(bundle.text())
    assert Bundle.read(str(path)) == bundle
    good = json.loads(bundle.text())
    changes = ({"format": "x"}, {"role": "king"}, {"expires": "soon"}, {"more": 1})
    for change in (*changes, {"address": "nonsense"}, {"address": "h:x"}, {"address": ":1"}):
        path.write_text(json.dumps(good | change))
        with pytest.raises(UsageError, match="no invitation: expected a file that"):
            Bundle.read(str(path))
    for text in ("", "[]", "null", "[" * 100_000, '{"format": "llmbol-invitation"}', "\0"):
        path.write_text(text)
        with pytest.raises(UsageError, match="no invitation"):
            Bundle.read(str(path))
    path.write_text(json.dumps(good | {"version": 2}))
    with pytest.raises(UsageError, match="of version 2, expected 1"):
        Bundle.read(str(path))
    with pytest.raises(FileError, match="no such file"):
        Bundle.read(str(tmp_path / "none"))


@pytest.fixture
def plan(home, tmp_path) -> Plan:
    path = tmp_path / "it's here.json"
    path.write_text(Invitations(home).invite("node", 60, "h:1").text())
    return Plan(str(path), Bundle.read(str(path)), 3, ("training", "gpu"), 4, ("u@one.net", "two"))


@pytest.mark.parametrize("system", ["slurm", "ssh"])
def test_scripts_are_ones_that_a_shell_reads(plan, system, tmp_path):
    script = tmp_path / "script"
    script.write_text(render(system, plan))
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
    if shutil.which("shellcheck"):
        told = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
        assert told.stdout == ""
    assert "--capabilities training,gpu --threads 4" in script.read_text()


def fakes(folder: Path, **scripts: str) -> dict[str, str]:
    """Return an environment in which some commands are shell scripts."""
    for tool, text in scripts.items():
        (folder / tool).write_text(f"#!/bin/sh\n{text}\n")
        (folder / tool).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)}


@pytest.mark.parametrize("how", ["ends", "is cancelled"])
def test_slurm_leaves_no_keys_behind(plan, tmp_path, how):
    work = 'printf \'%s|\' "$@"; printf \'%s\\n\' "$LLMBOL_STATE"; ls -d "$LLMBOL_STATE"'
    environment = fakes(tmp_path, srun=work + ("" if how == "ends" else "; sleep 1"))
    environment |= {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "2"}
    script = tmp_path / "script"
    script.write_text(render("slurm", plan))
    with running(["sh", script], stdout=subprocess.PIPE, env=environment, text=True) as job:
        assert job.stdout is not None
        *words, state = job.stdout.readline().strip().split("|")
        assert job.stdout.readline().strip() == state
        assert words[:5] == ["--cpus-per-task=4", "cluster", "node", "--join", plan.path]
        assert words[-2:] == ["--name", "slurm-7-2"]
        if how != "ends":
            job.terminate()
        assert job.wait(10) == (0 if how == "ends" else 143)
    assert not Path(state).exists()


def test_ssh_starts_as_many_nodes_on_each_machine(plan, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    note = f"printf '%s|' \"$@\" >>'{tmp_path}/calls'; echo >>'{tmp_path}/calls'"
    environment = fakes(
        tmp_path,
        # There the words are run by a shell, with the script for its input.
        ssh=f'{note}; cd "{home}"; shift; eval "$*"',
        scp=f'{note}; cp "$2" "{home}/.llmbol-node.json"',
        cluster='echo "$@"; exec /bin/sleep 3',
        sleep="exec /bin/sleep 0.1",
    )
    script = tmp_path / "script"
    script.write_text(render("ssh", plan))
    started = subprocess.run(["sh", script], env=environment, capture_output=True, check=False)
    assert (started.returncode, started.stderr) == (0, b"")
    calls = [line.split("|") for line in (tmp_path / "calls").read_text().splitlines()]
    assert calls[0][1:3] == [plan.path, "u@one.net:.llmbol-node.json"]
    assert [call[0] for call in calls] == [
        "-pq", *["u@one.net"] * 3, "-pq", *["two"] * 3,
    ]  # fmt: skip
    told = [line.split("--name ")[1] for line in started.stdout.decode().splitlines()]
    assert told == [f"{host}-{number}" for host in ("one", "two") for number in (1, 2, 3)]
    assert (home / ".llmbol-node.json").stat().st_mode & 0o077 == 0
    # Where there is no such command, or it ends at once, that is told.
    environment["CLUSTER"] = "clutser"
    failed = subprocess.run(["sh", script], env=environment, capture_output=True, check=False)
    assert failed.returncode == 1
    assert b"two-3: no command clutser here" in failed.stderr
    environment["CLUSTER"] = "false"
    failed = subprocess.run(["sh", script], env=environment, capture_output=True, check=False)
    assert failed.returncode == 1


def test_kubernetes_gets_the_invitation_and_no_rights(plan):
    secret, deployment = yaml.safe_load_all(render("kubernetes", plan))
    assert secret["kind"] == "Secret"
    spec = deployment["spec"]
    assert spec["replicas"] == 3
    (container,) = spec["template"]["spec"]["containers"]
    assert container["command"][:4] == ["cluster", "node", "--join", "/invitation/node.json"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]


def test_systemd_reads_the_unit(plan, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here")
    unit = tmp_path / "llmbol-node@1.service"
    unit.write_text(render("systemd", plan))
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    assert "llmbol-node" not in told.stderr, told.stderr


def test_what_cannot_be_rendered_is_told(plan, home):
    with pytest.raises(UsageError, match="did you mean 'slurm'"):
        render("slurn", plan)
    client = Invitations(home).invite("client", 60, "h:1")
    with pytest.raises(UsageError, match="an invitation for a client, not for nodes"):
        Plan("c.json", client)
    for hosts in (("-oProxyCommand=x",), ("a b",), ("'",)):
        with pytest.raises(UsageError, match="is no name of a machine"):
            Plan("n.json", plan.bundle, hosts=hosts)
    with pytest.raises(UsageError, match="no machines to reach by SSH"):
        render("ssh", Plan("n.json", plan.bundle))
    assert all(render(name, plan) for name in RENDERERS)


@pytest.mark.parametrize("text", [":1", "h:", "h:0", "h:x", "h:99999", "0.0.0.0", "no.such.host."])
def test_addresses_to_listen_at_make_sense(text):
    with pytest.raises(UsageError):
        place(text)
