"""Waiting for runs to end: subscribe, then look; one subscription a client serves all its waiters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redisflow.backend.listener import Listener
from redisflow.backend.redis.analytics import Analytics
from redisflow.backend.redis.core import RedisCore

LOOK_AGAIN = 5.0  # seconds: a hint may be lost, the status is the truth
ENDED = ("completed", "failed", "cancelled")


class Waiting(Analytics):
    """`wait_for` on top of the other roles."""

    _listener: Listener | None = None
    _waiters: dict[str, set[asyncio.Event]]
    _subscribed: set[int]

    @property
    def listener(self) -> Listener:
        """Subscriptions of this backend, made at first use."""
        if self._listener is None:
            self._listener = Listener(self.server)
            self._waiters, self._subscribed = {}, set()
        return self._listener

    async def close(self) -> None:
        """Release every connection; the backend is unusable after."""
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        await RedisCore.close(self)

    async def wait_for(self, run_id: str, timeout: float | None = None) -> str:
        """Status word of a run once it has ended, or at the timeout; "" where there is none.

        Args:
            run_id: the run.
            timeout: seconds; None waits for ever.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        listener, partition = self.listener, self.partition(run_id)
        if partition not in self._subscribed:
            self._subscribed.add(partition)
            await listener.subscribe(self.partitions[partition].done_channel, self._on_done)
        event = asyncio.Event()
        self._waiters.setdefault(run_id, set()).add(event)
        try:
            while True:
                event.clear()
                status = (await self.status_of([run_id]))[0]
                left = None if until is None else until - loop.time()
                if status in ENDED or not status or (left is not None and left <= 0):
                    return status
                try:
                    async with asyncio.timeout(LOOK_AGAIN if left is None else min(left, LOOK_AGAIN)):
                        await event.wait()
                except TimeoutError:
                    continue
        finally:
            self._waiters[run_id].discard(event)
            if not self._waiters[run_id]:
                del self._waiters[run_id]

    async def wait_all(self, run_ids: Sequence[str], timeout: float | None = None) -> list[str]:
        """Status words of several runs, as `wait_for` gives them."""
        return list(await asyncio.gather(*(self.wait_for(run_id, timeout) for run_id in run_ids)))

    def _on_done(self, message: bytes | None) -> None:
        groups = self._waiters.values() if message is None else [self._waiters.get(message.decode(), set())]
        for event in (event for group in groups for event in group):
            event.set()
