"""Ends of runs and steps: how many in what time, and how they went."""

from __future__ import annotations

from typing import ClassVar, Final

from redisflow.model.analytics.results import SuccessRate, Throughput
from redisflow.model.analytics.shares import percent
from redisflow.model.analytics.window import EventTypes
from redisflow.model.events import (
    BaseEvent,
    StepCompleted,
    StepFailed,
    StepSkipped,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
)

_HOUR_US: Final = 3_600_000_000


class EndsCounter:
    """Ends of runs and of steps by kind: what throughput and success rate have in common."""

    counted: ClassVar[EventTypes] = (
        StepCompleted,
        StepFailed,
        StepSkipped,
        WorkflowCompleted,
        WorkflowFailed,
        WorkflowCancelled,
    )

    def __init__(self) -> None:
        self.runs_completed = self.runs_failed = self.runs_cancelled = 0
        self.steps_completed = self.steps_failed = self.steps_skipped = 0

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepCompleted):
            self.steps_completed += 1
        elif isinstance(event, StepFailed):
            self.steps_failed += event.terminal
        elif isinstance(event, StepSkipped):
            self.steps_skipped += 1
        elif isinstance(event, WorkflowCompleted):
            self.runs_completed += 1
        elif isinstance(event, WorkflowFailed):
            self.runs_failed += 1
        elif isinstance(event, WorkflowCancelled):
            self.runs_cancelled += 1

    def throughput(self, time_range_us: int, workflow_slug: str | None = None) -> Throughput:
        """Ends in the range, and an hour; cancelled runs are none. A range of 0 or less gives rates of 0."""
        hours = time_range_us / _HOUR_US
        runs = self.runs_completed + self.runs_failed
        steps = self.steps_completed + self.steps_failed + self.steps_skipped
        return Throughput(
            workflow_slug=workflow_slug,
            time_range_us=time_range_us,
            runs_completed=self.runs_completed,
            runs_failed=self.runs_failed,
            steps_completed=self.steps_completed,
            steps_failed=self.steps_failed,
            steps_skipped=self.steps_skipped,
            runs_per_hour=runs / hours if hours > 0 else 0.0,
            steps_per_hour=steps / hours if hours > 0 else 0.0,
        )

    def success_rate(self, workflow_slug: str | None = None, step_id: str | None = None) -> SuccessRate:
        """Shares of the kinds of ends."""
        runs = self.runs_completed + self.runs_failed + self.runs_cancelled
        steps = self.steps_completed + self.steps_failed + self.steps_skipped
        return SuccessRate(
            workflow_slug=workflow_slug,
            step_id=step_id,
            total_runs=runs,
            successful_runs=self.runs_completed,
            failed_runs=self.runs_failed,
            cancelled_runs=self.runs_cancelled,
            success_rate=percent(self.runs_completed, runs),
            failure_rate=percent(self.runs_failed, runs),
            total_steps=steps,
            successful_steps=self.steps_completed,
            failed_steps=self.steps_failed,
            skipped_steps=self.steps_skipped,
            step_success_rate=percent(self.steps_completed, steps),
            step_failure_rate=percent(self.steps_failed, steps),
        )
