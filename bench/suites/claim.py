"""Claims: how many a second one line takes without running anything, and what one costs the server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from bench.flows import one
from bench.harness import Server, open_backend, server_cpu
from bench.peers import Peer
from bench.suites.base import Setup, Suite
from redisflow.backend.redis import RedisBackend
from redisflow.backend.turns import MAX_CLAIMS, Lane, TurnAnswer, TurnLink
from redisflow.backend.types import Submission
from redisflow.codec import pack


async def claims(backend: RedisBackend, count: int, workers: int = 1) -> dict[str, float]:
    """Submit so many runs, and claim them over one line a worker and partition, each with two lanes."""
    await backend.submit(one.plan, [Submission() for _ in range(count)])
    taken, done = 0, asyncio.Event()

    def on_answer(link: TurnLink, lane: Lane, answer: TurnAnswer) -> None:
        nonlocal taken
        taken += len(answer.claims)
        if taken >= count:
            done.set()
        elif answer.claims:
            link.send(lane, list(range(MAX_CLAIMS)), False)

    links = [
        TurnLink(
            backend, partition, worker=f"bench-{number}.0", queues=[one.slug], on_answer=on_answer,
            body=pack({"wi": f"bench-{number}.0", "wc": 100})[1:], on_fatal=lambda error: done.set(),
        )
        for number in range(workers) for partition in range(len(backend.partitions))
    ]  # fmt: skip
    for link in links:
        await link.open()
    cpu, began = await server_cpu(backend), time.perf_counter()
    for link in links:
        for lane in link.lanes:
            link.send(lane, list(range(MAX_CLAIMS)), False)
    await done.wait()
    took, cpu = time.perf_counter() - began, await server_cpu(backend) - cpu
    for link in links:
        link.close()
    if taken < count:
        raise SystemExit(f"{taken} of {count} runs were claimed")
    return {"rate": count / took, "server CPU": cpu / count * 1e6}


async def _measure(url: str, count: int) -> dict[str, float]:
    backend = await open_backend(url)
    try:
        return await claims(backend, count)
    finally:
        await backend.close()


def _claim(peer: Peer, setup: Setup) -> Mapping[str, float]:
    with Server(setup.server) as server:
        return asyncio.run(_measure(server.url, setup.count))


CLAIM = Suite(
    "claim", "claims over one line", 20_000, {"rate": "claims/s", "server CPU": "µs/claim"}, _claim,
    takes=lambda peer: peer.own,
)  # fmt: skip
