"""How the server and the services around it are: what metrics and the live overview show beside the figures.

One look costs a few reads whatever the number of runs, so that it may be taken every few seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.inspect import QueueDepth, queue_depths, workers


@dataclass
class Health:
    """A look at a namespace and its server.

    Attributes:
        queues: by queue, then from the most urgent level down.
        workers: what each living worker says of itself, with `running` and `seenAgoUs`.
        round_trip_us: how long the server took to say its time.
        round_ago_us: since the last round of a reclaimer, the longest over partitions; None where one never ran.
        nodes: INFO of memory and persistence, one a node.
    """

    queues: list[QueueDepth]
    workers: list[dict[str, Any]]
    round_trip_us: int
    round_ago_us: int | None
    nodes: list[dict[str, Any]]

    def node_sum(self, name: str) -> float | None:
        """Sum of a number of INFO over the nodes; None where no node knows it."""
        known = [float(node[name]) for node in self.nodes if name in node]
        return sum(known) if known else None


async def look(backend: RedisBackend) -> Health:
    """One look.

    Raises:
        ServerUnavailable: the server does not answer.
    """
    before = time.perf_counter_ns()
    await backend.server_time()
    took = (time.perf_counter_ns() - before) // 1000
    now = await backend.now()  # ticks are written in the time of events
    ticks = [
        await backend.server.retry(lambda key=keys.meta: backend.client.hget(key, "tick"))  # type: ignore[misc]
        for keys in backend.partitions
    ]
    return Health(
        queues=await queue_depths(backend),
        workers=await workers(backend, backend.settings.stale_after),
        round_trip_us=took,
        round_ago_us=max(0, now - int(float(min(ticks, key=float)))) if all(ticks) else None,
        nodes=[
            {**memory, **persistence}
            for memory, persistence in zip(
                await _info(backend, "memory"), await _info(backend, "persistence"), strict=False
            )
        ],
    )


async def _info(backend: RedisBackend, section: str) -> list[dict[str, Any]]:
    found = await backend.server.retry(lambda: backend.client.info(section))
    several = all(isinstance(value, dict) for value in found.values())
    return list(found.values()) if several else [found]
