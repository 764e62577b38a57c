"""Upkeep: stale steps, deadlines, retention. Every round is one script a partition, and any number may run side by side."""

from __future__ import annotations

import random

from redisflow.backend.redis.steps import Steps
from redisflow.backend.replies import Reply
from redisflow.backend.types import Reclaimed, ReclaimRound, SweepRound
from redisflow.model.errors import TransitionRefused


class Upkeep(Steps):
    """What the reclaimer calls."""

    async def reclaim_round(
        self, partition: int, *, threshold_us: int, reclaimed_by: str, tick_us: int = 0
    ) -> ReclaimRound:
        """Take back up to a hundred steps whose last heartbeat is longer ago than the threshold.

        Args:
            partition: index of the partition.
            threshold_us: age of the last heartbeat from which a step is stale, exclusive.
            reclaimed_by: recorded in StepReclaimed.
            tick_us: time between rounds; after a longer gap (an outage) one threshold passes before anything is taken. 0: no grace.
        """
        reply = await self.call(
            "reclaim",
            partition,
            reclaimer=reclaimed_by,
            threshold=threshold_us,
            tick=tick_us,
            draw=f"{random.random():.6f}",
        )
        taken = tuple(
            Reclaimed(slug.decode(), run.decode(), step.decode(), attempt, worker.decode())
            for run, step, attempt, worker, slug in reply[1]
        )
        return ReclaimRound(taken, reply[2] == Reply.MORE, reply[3])

    async def sweep_round(self, partition: int, *, retention_us: int) -> SweepRound:
        """End runs that are past their deadline, delete those past their retention; up to a hundred of each."""
        reply = await self.call("sweep", partition, retention=retention_us)
        deleted = []
        for run_id in reply[2]:
            try:
                if await self.delete_run(run_id.decode()):
                    deleted.append(run_id.decode())
            except TransitionRefused:
                continue  # it was retried meanwhile
        return SweepRound(tuple(run.decode() for run in reply[1]), tuple(deleted), reply[3] == Reply.MORE)
