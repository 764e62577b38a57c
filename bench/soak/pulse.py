"""When work ended during a soak, and from that how long each fault was felt."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_left
from typing import Any

from bench.soak.nemesis import Nemesis
from redisflow import Client
from redisflow.backend.keys import Keys


class Pulse:
    """When the number of ended runs last rose in each partition, looked at 50 times a second."""

    def __init__(self, client: Client, nemesis: Nemesis[Any]) -> None:
        self._client, self._nemesis = client, nemesis
        self._over = False
        self._beats: list[list[float]] = [[] for _ in client.backend.partitions]
        self._tasks = [asyncio.create_task(self._watch(*item)) for item in enumerate(client.backend.partitions)]

    async def _watch(self, index: int, keys: Keys) -> None:
        last = 0
        while not self._over:  # a cancellation could get lost in the client's sending
            with contextlib.suppress(Exception):
                count = int(await asyncio.wait_for(self._client.backend.client.zcard(keys.ended), 0.5))
                if count > last:
                    self._beats[index].append(self._nemesis.clock)
                last = count
            await asyncio.sleep(0.02 * len(self._beats))

    async def stop(self) -> None:
        self._over = True
        await asyncio.gather(*self._tasks)

    def recoveries(self) -> list[tuple[float, str]]:
        """Seconds from the healing of each fault until a run ended in every partition, and the fault; shortest first."""
        found = []
        for fault in self._nemesis.faults:
            places = [(beats, bisect_left(beats, fault.until)) for beats in self._beats]
            if all(place < len(beats) for beats, place in places):
                found.append((round(max(beats[place] for beats, place in places) - fault.until, 2), fault.name))
        return sorted(found)
