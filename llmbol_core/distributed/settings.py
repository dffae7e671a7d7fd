"""How Dask is set up for the processes of a cluster, handed to them through the environment.

Placement, retries and time-outs are decided by our dispatcher, so what Dask does of its own accord
(stealing, replicating, re-running) is off; so is what costs time or memory while nothing happens.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Mapping
from pathlib import Path

# fmt: off
# setting                                                 value
SETTINGS: dict[str, object] = {
    # Who decides: a dead node gives its tasks back at once, and no task moves by itself.
    "distributed.scheduler.allowed-failures":             0,
    "distributed.scheduler.work-stealing":                False,
    "distributed.scheduler.worker-ttl":                   None,
    "distributed.scheduler.active-memory-manager.start":  False,
    # Who gets in.
    "distributed.comm.require-encryption":                True,
    "distributed.comm.tls.min-version":                   1.3,
    # What costs while nothing happens.
    "distributed.worker.profile.enabled":                 False,
    "distributed.admin.tick.interval":                    "500ms",
    "distributed.admin.system-monitor.interval":          "2s",
    # What grows: the last messages of each stream are kept, arguments and all.
    "distributed.admin.low-level-log-length":             20,
    "distributed.admin.log-length":                       1000,
    "distributed.diagnostics.computations.max-history":   1,
    # How long silence may last.
    "distributed.comm.timeouts.connect":                  "10s",
    "distributed.comm.timeouts.tcp":                      "15s",
    "distributed.deploy.lost-worker-timeout":             "5s",
    # What goes into the logs.
    "logging.distributed":                                "warning",
}
# fmt: on

THREADS = ("LLMBOL_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say how many threads a process may use: a node's are its own."""

ROOT = Path(__file__).parent.parent.parent
"""The directory that the package is imported from."""


def environment(state: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a cluster's processes; foreign Dask settings do not enter it."""
    variables = {name: text for name, text in inherited.items() if not name.startswith("DASK_")}
    for name, value in SETTINGS.items():
        key = "DASK_" + name.upper().replace(".", "__").replace("-", "_")
        variables[key] = value if isinstance(value, str) else repr(value)
    variables["LLMBOL_STATE"] = str(state)
    if Path(sysconfig.get_path("purelib")) != ROOT:
        path = variables.get("PYTHONPATH")
        variables["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
    return variables
