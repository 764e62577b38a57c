"""Workers: the same drain by one worker process and by two, and how evenly two share it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from bench.drive import driving
from bench.peers import Peer
from bench.suites.base import Goal, Setup, Suite


def _rate(peer: Peer, setup: Setup, processes: int) -> tuple[float, float]:
    """Jobs a second, and the greatest share of one process."""
    with driving(peer, setup.server, setup.count) as drive, ExitStack() as stack:
        drive.call("enqueue")
        workers = [stack.enter_context(drive.process("work", BENCH_WORKERS=str(processes))) for _ in range(processes)]
        last = max(int(drive.expect("last", worker)[0]) for worker in workers)
        shares = [int(drive.expect("share", worker)[0]) for worker in workers]
        # who came when nothing was left began none
        first = min(
            int(drive.expect("first", worker)[0]) for worker, share in zip(workers, shares, strict=True) if share
        )
    return setup.count / (last - first) * 1e9, max(shares) / sum(shares)


def _workers(peer: Peer, setup: Setup) -> Mapping[str, float]:
    one, _ = _rate(peer, setup, 1)
    two, share = _rate(peer, setup, 2)
    return {"one": one, "two": two, "two to one": two / one, "greater share": share}


WORKERS = Suite(
    "workers", "two worker processes", 50_000,
    {"one": "jobs/s", "two": "jobs/s", "two to one": "ratio", "greater share": "of the jobs"}, _workers,
    takes=lambda peer: peer.own, goals={"two to one": Goal(1, "least", "")},
)  # fmt: skip
