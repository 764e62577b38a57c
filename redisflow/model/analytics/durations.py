"""How long steps and runs took, and how long attempts waited for a worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from redisflow.model.analytics.results import SchedulingLatency, StepDuration, WorkflowDuration
from redisflow.model.analytics.shares import mean
from redisflow.model.analytics.window import EventTypes
from redisflow.model.events import (
    BaseEvent,
    StepCompleted,
    StepFailed,
    StepScheduled,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
)


def percentile(ascending: list[int], q: float) -> int:
    """The item at floor(n·q), the last where that runs over; 0 of nothing."""
    return ascending[min(int(len(ascending) * q), len(ascending) - 1)] if ascending else 0


def _statistics(values: Iterable[int]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "average_us": mean(sum(ordered), len(ordered)),
        "median_us": percentile(ordered, 0.5),
        "p95_us": percentile(ordered, 0.95),
        "p99_us": percentile(ordered, 0.99),
        "min_us": ordered[0] if ordered else 0,
        "max_us": ordered[-1] if ordered else 0,
    }


class StepDurationCounter:
    """Durations of every completed or failed attempt, terminal or not."""

    counted: ClassVar[EventTypes] = (StepCompleted, StepFailed)

    def __init__(self) -> None:
        self._values: list[int] = []

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepCompleted | StepFailed):
            self._values.append(event.duration_us)

    def result(self, workflow_slug: str | None = None, step_id: str | None = None) -> StepDuration:
        """The statistics so far."""
        return StepDuration(workflow_slug=workflow_slug, step_id=step_id, **_statistics(self._values))


class WorkflowDurationCounter:
    """Durations of every run that ended, cancelled ones too."""

    counted: ClassVar[EventTypes] = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled)

    def __init__(self) -> None:
        self._values: list[int] = []

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, WorkflowCompleted | WorkflowFailed | WorkflowCancelled):
            self._values.append(event.duration_us)

    def result(self, workflow_slug: str | None = None) -> WorkflowDuration:
        """The statistics so far."""
        return WorkflowDuration(workflow_slug=workflow_slug, **_statistics(self._values))


class SchedulingLatencyCounter:
    """Start minus available-at of each attempt: of its last StepStarted and StepScheduled, in any order."""

    counted: ClassVar[EventTypes] = (StepScheduled, StepStarted)

    def __init__(self) -> None:
        self._available: dict[tuple[str, str, int], int] = {}
        self._started: dict[tuple[str, str, int], int] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepScheduled):
            self._available[event.run_id, event.step_id, event.attempt_number] = event.available_at_us
        elif isinstance(event, StepStarted):
            self._started[event.run_id, event.step_id, event.attempt_number] = event.timestamp_us

    def result(self, workflow_slug: str | None = None, step_id: str | None = None) -> SchedulingLatency:
        """The statistics so far; attempts without both events, or that started early, are left out."""
        waits = (at - self._available[key] for key, at in self._started.items() if key in self._available)
        statistics = _statistics(wait for wait in waits if wait >= 0)
        return SchedulingLatency(workflow_slug=workflow_slug, step_id=step_id, **statistics)
