"""Growth: what stays flat as a namespace grows: drain over the queue's length, claims over runs kept, workers and partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bench.drive import driving
from bench.flows import one
from bench.harness import Server, open_backend, reach
from bench.peers import Peer
from bench.suites.base import Setup, Suite
from bench.suites.claim import claim
from redisflow import Worker
from redisflow.backend.types import Submission

SAMPLE = 10_000
"""Runs that are drained of a long queue."""
CLAIMED = 20_000
WORKERS = (1, 20, 200)
PARTITIONS = (1, 4, 16)


def _drain(peer: Peer, setup: Setup, queued: int) -> dict[str, float]:
    """The rate of the first runs of a queue of that length, and the server's CPU a run."""
    sample = min(queued, SAMPLE)
    with driving(peer, setup.server, queued, jobs=sample) as drive:
        with drive.process("enqueue", queued) as process:
            drive.expect("took", process)
        with drive.process("work", sample, BENCH_RUNS=str(sample)) as worker:
            first = int(drive.expect("first", worker)[0])
            cpu = drive.server.cpu()
            last = int(drive.expect("last", worker)[0])
            cpu = drive.server.cpu() - cpu
    return {
        f"drain of {queued:,}": sample / (last - first) * 1e9,
        f"drain of {queued:,}, server CPU": cpu / sample * 1e6,
    }


async def _claims(url: str, kept: int, workers: int, partitions: int) -> float:
    """Server CPU of a claim, µs."""
    backend = await open_backend(url, partitions)
    try:
        if kept:
            await backend.submit(one.plan, [Submission() for _ in range(kept)])
            done = backend.partitions[0].index(one.slug, "completed")

            async def finished() -> bool:
                return bool(await backend.client.zcard(done) >= kept)

            async with Worker(backend, [one]):
                await reach(finished)
        return (await claim(backend, CLAIMED, workers))["server CPU"]
    finally:
        await backend.close()


def _growth(peer: Peer, setup: Setup) -> Mapping[str, float]:
    found: dict[str, float] = {}
    sizes = [size for size in (1_000, 10_000, 100_000) if size < setup.count]
    for queued in [*sizes, setup.count]:
        found |= _drain(peer, setup, queued)
    cases = [
        (0, 1, 1),
        (setup.count // 10, 1, 1),
        *((0, n, 1) for n in WORKERS[1:]),
        *((0, 1, n) for n in PARTITIONS[1:]),
    ]
    for kept, workers, partitions in cases:
        name = f"claim: {kept:,} kept, {workers} workers, {partitions} partitions"
        with Server(setup.server) as server:
            found[name] = asyncio.run(_claims(server.url, kept, workers, partitions))
    return found


class _Units(dict[str, str]):
    """Units of measures whose names hold sizes."""

    def __missing__(self, measure: str) -> str:
        if measure.startswith("claim"):
            return "µs/claim"
        return "µs/run" if measure.endswith("CPU") else "runs/s"


GROWTH = Suite("growth", "growth", 100_000, _Units(), _growth, takes=lambda peer: peer.own)
