"""Instructions: what one more job costs the server, counted by valgrind, so the same on every machine and at every load.

The server runs under `valgrind --tool=cachegrind --cache-sim=no` for two sizes of the same work; the difference of the counts over
the difference of the sizes is the cost of a job, without start and end of the server.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.drive import Drive
from bench.harness import Server
from bench.peers import Peer
from bench.suites.base import Goal, Setup, Suite

SMALL = 4
"""The greater size over the smaller one."""
RARELY = {"REDISFLOW_HEARTBEAT_INTERVAL": "60s", "REDISFLOW_STALE_AFTER": "10m"}
"""The server is fifty times slower under valgrind, so what is done by the clock would count fifty times. BullMQ renews its locks
every 15 s, which is as long as the work takes."""


def _count(peer: Peer, setup: Setup, count: int, drained: bool) -> int:
    """Instructions of a server's life with so many jobs."""
    with tempfile.TemporaryDirectory(prefix="rfb-") as folder:
        # a file of its own: as root, valgrind would put one in the place of /dev/null
        files = [f"--cachegrind-out-file={folder}/counts", f"--log-file={folder}/log"]
        wrapper = ["valgrind", "--tool=cachegrind", "--cache-sim=no", *files]
        return _count_under(peer, setup, count, drained, wrapper, Path(folder, "log"))


def _count_under(peer: Peer, setup: Setup, count: int, drained: bool, wrapper: list[str], log: Path) -> int:
    with Server(setup.server, wrapper=wrapper) as server:
        drive = Drive(peer, server, count)
        try:
            drive.call("enqueue")
            if drained:
                with drive.process("work", **RARELY) as worker:
                    drive.expect("last", worker)
        finally:
            drive.close()
        server.stop()
    text = log.read_text()
    found = re.search(r"I\s+refs:\s+([\d,]+)", text)
    if found is None:
        raise SystemExit(f"valgrind counted nothing:\n{text}")
    return int(found[1].replace(",", ""))


def _instructions(peer: Peer, setup: Setup) -> Mapping[str, float]:
    if shutil.which("valgrind") is None:
        raise SystemExit("the suite `instructions` needs valgrind on the PATH")
    found = {}
    for name, drained in (("submit", False), ("submit to end", True)):
        small = setup.count // SMALL
        less, more = (_count(peer, setup, size, drained) for size in (small, setup.count))
        found[name] = (more - less) / (setup.count - small)
    return found


INSTRUCTIONS = Suite(
    "instructions", "instructions of the server a job", 2_000, {"submit": "instructions", "submit to end": "instructions"},
    _instructions, takes=lambda peer: peer.limit is None,
    goals={"submit to end": Goal(0.65, "most")},
)  # fmt: skip
