"""Files for other systems, with which Slurm, Kubernetes, systemd or SSH start nodes.

A node is one command line, ``cluster node --join FILE``; each renderer wraps it in the form of its
system. Only the output for Kubernetes holds a secret: the invitation itself.
"""

from __future__ import annotations

import base64
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llmbol_core.distributed.invitations import Bundle
from llmbol_core.distributed.node import DEFAULT_CAPABILITIES, ComputeNode
from llmbol_core.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be started: the invitation's file, how many nodes, and what each is like."""

    file: str
    bundle: Bundle
    count: int = 1
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    threads: int = 1
    hosts: tuple[str, ...] = ()
    """The machines that SSH reaches."""
    image: str = "llmbol:latest"
    """The container image that Kubernetes runs."""

    def __post_init__(self) -> None:
        ComputeNode("node", capabilities=self.capabilities, threads=self.threads)
        if self.bundle.role != "node":
            raise UsageError(f"{self.file}: an invitation for a {self.bundle.role}, not for nodes")
        if not 1 <= self.count <= 10_000:
            raise UsageError(f"{self.count} nodes: expected between 1 and 10000")
        for word in (*self.hosts, self.image):
            if not word or word.startswith("-") or any(c.isspace() or c in "'\"" for c in word):
                raise UsageError(f"{word!r} is no name of a machine or an image")

    def command(self, file: str, *options: str) -> str:
        """Return the command line of a node, for a shell."""
        words = [
            "cluster", "node", "--join", file, "--capabilities", ",".join(self.capabilities),
            "--threads", str(self.threads), *options,
        ]  # fmt: skip
        return " ".join(shlex.quote(word) for word in words)

    @property
    def path(self) -> str:
        """The absolute path of the invitation's file."""
        return str(Path(self.file).absolute())


def slurm(plan: Plan) -> str:
    """Return a batch script: an array with a job for each node."""
    return f"""\
#!/bin/sh
#SBATCH --job-name=llmbol-node
#SBATCH --array=1-{plan.count}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={plan.threads}
#SBATCH --signal=TERM@30
# The invitation must be readable on the compute nodes.
set -eu
LLMBOL_STATE=$(mktemp -d)
export LLMBOL_STATE
trap 'rm -rf "$LLMBOL_STATE"' EXIT
trap 'exit 143' INT TERM
name=slurm-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID
srun --cpus-per-task={plan.threads} {plan.command(plan.path)} --name "$name"
"""


def kubernetes(plan: Plan) -> str:
    """Return a Secret that holds the invitation and a Deployment of the nodes."""
    data = base64.b64encode(plan.bundle.text().encode()).decode()
    words = shlex.split(plan.command("/invitation/node.json"))
    arguments = "".join(f"            - {_yaml(word)}\n" for word in words)
    return f"""\
apiVersion: v1
kind: Secret
metadata:
  name: llmbol-invitation
type: Opaque
data:
  node.json: {data}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: llmbol-node
  labels: {{app: llmbol-node}}
spec:
  replicas: {plan.count}
  selector:
    matchLabels: {{app: llmbol-node}}
  template:
    metadata:
      labels: {{app: llmbol-node}}
    spec:
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        fsGroup: 10001
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: node
          image: {_yaml(plan.image)}
          command:
{arguments}\
          env:
            - {{name: HOME, value: /state}}
            - {{name: LLMBOL_STATE, value: /state/llmbol}}
          resources:
            requests: {{cpu: "{plan.threads}", memory: 512Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: invitation, mountPath: /invitation, readOnly: true}}
            - {{name: state, mountPath: /state}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: invitation
          secret: {{secretName: llmbol-invitation, defaultMode: 0440}}
        - {{name: state, emptyDir: {{}}}}
        - {{name: tmp, emptyDir: {{}}}}
"""


def systemd(plan: Plan) -> str:
    """Return a unit; of several nodes each is an instance of a template."""
    several = plan.count > 1
    name = "--name %H-%i" if several else "--name %H"
    where = "llmbol-node@.service" if several else "llmbol-node.service"
    start = f"llmbol-node@{{1..{plan.count}}}" if several else "llmbol-node"
    words = shlex.split(plan.command(plan.path))
    # The manager's PATH is not that of a shell.
    words[:1] = [found] if (found := shutil.which(words[0])) else ["/usr/bin/env", words[0]]
    command = " ".join(map(_unit_word, words))
    return f"""\
# Save as ~/.config/systemd/user/{where} and run:
#   systemctl --user daemon-reload && systemctl --user enable --now {start}
[Unit]
Description=llmbol compute node
After=network-online.target

[Service]
ExecStart={command} {name}
Restart=on-failure
RestartSec=5
KillMode=mixed
NoNewPrivileges=yes
PrivateTmp=yes

[Install]
WantedBy=default.target
"""


_SSH = """\
#!/bin/sh
# Copies the invitation to each machine and starts nodes that live on there.
# CLUSTER=PATH says where the command is there, if a shell does not find it.
set -eu
failed=0
start() {
    ssh "$1" sh -s -- "$2" "${CLUSTER:-cluster}" <<'END' || failed=1
chmod 600 .llmbol-node.json
if ! command -v "$2" >/dev/null; then
    echo "$1: no command $2 here: say where it is with CLUSTER=PATH" >&2
    exit 127
fi
log=.llmbol-$1.log
: >"$log"
nohup "$2" WORDS --name "$1" </dev/null >"$log" 2>&1 &
tries=0
while [ ! -s "$log" ] && kill -0 $! 2>/dev/null && [ $((tries += 1)) -le 20 ]; do sleep 1; done
cat "$log"
kill -0 $!
END
}"""


def ssh(plan: Plan) -> str:
    """Return a shell script that starts nodes on machines which SSH reaches."""
    if not plan.hosts:
        raise UsageError("no machines to reach by SSH: name them with --hosts one,two")
    words = plan.command(".llmbol-node.json").partition(" ")[2]
    script = [_SSH.replace("WORDS", words)]
    for host in plan.hosts:
        target = shlex.quote(f"{host}:.llmbol-node.json")
        script.append(f"scp -pq {shlex.quote(plan.path)} {target} || failed=1")
        for number in range(1, plan.count + 1):
            name = f"{host.rpartition('@')[2].partition('.')[0]}-{number}"
            script.append(f"start {shlex.quote(host)} {shlex.quote(name)}")
    return "\n".join([*script, "exit $failed"]) + "\n"


def _unit_word(word: str) -> str:
    """Return a word of a command line as systemd reads it."""
    plain = word.replace("%", "%%").replace("$", "$$")
    return '"' + plain.replace("\\", "\\\\") + '"' if any(c.isspace() for c in word) else plain


def _yaml(word: str) -> str:
    """Return a word as YAML reads it back in any case."""
    return "'" + word.replace("'", "''") + "'"


# fmt: off
# system          what to print
RENDERERS: dict[str, Callable[[Plan], str]] = {
    "slurm":      slurm,
    "kubernetes": kubernetes,
    "systemd":    systemd,
    "ssh":        ssh,
}
# fmt: on


def render(system: str, plan: Plan) -> str:
    """Return the files for a system; raises UsageError saying which there are."""
    if system not in RENDERERS:
        hint = nearest(system, RENDERERS) or f": expected one of {', '.join(RENDERERS)}"
        raise UsageError(f"unknown system {system[:80]!r}{hint}")
    return RENDERERS[system](plan)
