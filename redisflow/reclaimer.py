"""The reclaimer: a sidecar that takes steps back from dead workers, ends runs past their deadline, and deletes old ones.

Any number may run side by side: every round is one script a partition, and each partition has rounds of its own, so that a silent
node of a Cluster holds up no other. It keeps no state; the time of the last round stands with the partition, so that after an
outage of Redis nobody is reclaimed until the living have had time to say so.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
from typing import Any

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.traces import export_reclaimed, export_stopped
from redisflow.model.errors import NamespaceLost, RedisflowError

log = logging.getLogger("redisflow.reclaimer")
LAST_ROUND = 2.0  # seconds that rounds under way get to end when it stops; each is whole or not at all


class Reclaimer:
    """Upkeep of a namespace.

    Args:
        backend: opened, or anything with an opened `backend`, such as a `Client`.
        name: shown in StepReclaimed events; default: host and pid.
    """

    def __init__(self, backend: Any, *, name: str | None = None) -> None:
        self._source = backend
        self.name = name or f"reclaimer-{socket.gethostname().split('.')[0]}-{os.getpid()}.{secrets.token_hex(3)}"
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Rounds until `stop` is called; passing faults are ridden out.

        Raises:
            NamespaceLost: the server was flushed or replaced.
        """
        settings = self._backend.settings
        log.info(
            "reclaimer %s: stale after %.1f s, a round every %.1f s",
            self.name, settings.stale_after / 1e6, settings.reclaim_interval / 1e6,
        )  # fmt: skip
        loops = [asyncio.create_task(self._look_after(partition)) for partition in range(len(self._backend.partitions))]
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopped, *loops], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(loops, timeout=LAST_ROUND if self._stopping.is_set() else 0)
            for loop in loops:
                if loop.done():
                    loop.result()
        finally:
            for task in (stopped, *loops):
                task.cancel()
            await asyncio.gather(stopped, *loops, return_exceptions=True)

    async def _look_after(self, partition: int) -> None:
        """Rounds over one partition until `stop` is called."""
        while not self._stopping.is_set():
            more = False
            try:
                more = await self._round(partition)
            except NamespaceLost:
                raise
            except RedisflowError as error:
                log.warning("a partition could not be looked after: %s", error)
            try:
                async with asyncio.timeout(0.0 if more else self._backend.settings.reclaim_interval / 1e6):
                    await self._stopping.wait()
            except TimeoutError:
                continue

    async def run_once(self) -> float:
        """One round over all partitions.

        Returns:
            Seconds to the next round.
        """
        backend = self._backend
        rounds = [self._round(partition) for partition in range(len(backend.partitions))]
        more = False
        for outcome in await asyncio.gather(*rounds, return_exceptions=True):
            if isinstance(outcome, RedisflowError) and not isinstance(outcome, NamespaceLost):
                log.warning("a partition could not be looked after: %s", outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                more = more or outcome
        return 0.0 if more else backend.settings.reclaim_interval / 1e6

    async def _round(self, partition: int) -> bool:
        backend, settings = self._backend, self._backend.settings
        stale = await backend.reclaim_round(
            partition, threshold_us=settings.stale_after, reclaimed_by=self.name, tick_us=settings.reclaim_interval
        )
        for step in stale.reclaimed:
            log.warning(
                "took step %s back from %s  run=%s attempt=%d",
                step.step_id,
                step.worker_id,
                step.run_id,
                step.attempt_number,
            )
            if tracing.enabled():
                await export_reclaimed(backend, step)
        swept = await backend.sweep_round(partition, retention_us=settings.retention)
        for run_id in swept.timed_out:
            log.warning("run timed out  run=%s", run_id)
            if tracing.enabled():
                await export_stopped(backend, run_id)
        if swept.deleted:
            log.info("deleted %d runs past their retention", len(swept.deleted))
        return stale.more or swept.more

    def stop(self) -> None:
        """Ask `run` to return after its round."""
        self._stopping.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT stop `run`."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    @property
    def _backend(self) -> RedisBackend:
        return getattr(self._source, "backend", self._source)  # type: ignore[no-any-return]
