"""Claims: how many a second one line takes without running anything, and what one costs the server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bench.flows import one
from bench.harness import Server, open_backend, server_cpu
from bench.peers import Peer
from bench.suites.base import Setup, Suite
from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission
from redisflow.cli.measures import claims


async def claim(backend: RedisBackend, count: int, workers: int = 1) -> dict[str, float]:
    """Submit so many runs and claim them; the CPU includes that of opening the lines."""
    await backend.submit(one.plan, [Submission() for _ in range(count)])
    cpu = await server_cpu(backend)
    took = await claims(backend, one.slug, count, workers)
    return {"rate": count / took, "server CPU": (await server_cpu(backend) - cpu) / count * 1e6}


async def _measure(url: str, count: int) -> dict[str, float]:
    backend = await open_backend(url)
    try:
        return await claim(backend, count)
    finally:
        await backend.close()


def _claim(peer: Peer, setup: Setup) -> Mapping[str, float]:
    with Server(setup.server) as server:
        return asyncio.run(_measure(server.url, setup.count))


CLAIM = Suite(
    "claim", "claims over one line", 20_000, {"rate": "claims/s", "server CPU": "µs/claim"}, _claim,
    takes=lambda peer: peer.own,
)  # fmt: skip
