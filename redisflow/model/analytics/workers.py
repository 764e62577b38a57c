"""Workers that steps were taken from."""

from __future__ import annotations

from typing import ClassVar

from redisflow.model.analytics.results import TOP, UnstableWorker, WorkerStability
from redisflow.model.analytics.shares import mean
from redisflow.model.analytics.window import EventTypes
from redisflow.model.events import BaseEvent, StepReclaimed


class WorkerStabilityCounter:
    """Reclaimed steps by the worker they were taken from."""

    counted: ClassVar[EventTypes] = (StepReclaimed,)

    def __init__(self) -> None:
        self._by_worker: dict[str, int] = {}
        self._stale_us = 0

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepReclaimed):
            worker = event.original_worker_id
            self._by_worker[worker] = self._by_worker.get(worker, 0) + 1
            self._stale_us += event.stale_duration_us

    def result(self) -> WorkerStability:
        """The figures so far; workers most often reclaimed from come first, then first seen first."""
        total = sum(self._by_worker.values())
        ranked = sorted(self._by_worker.items(), key=lambda item: -item[1])[:TOP]
        return WorkerStability(
            total_reclamations=total,
            unique_workers_with_reclamations=len(self._by_worker),
            steps_reclaimed_by_worker=dict(self._by_worker),
            average_stale_time_us=mean(self._stale_us, total),
            most_unstable_workers=tuple(
                UnstableWorker(worker_id=worker, reclamation_count=count) for worker, count in ranked
            ),
        )
