"""Whether retries help."""

from __future__ import annotations

from typing import ClassVar

from redisflow.model.analytics.results import RetryAnalysis
from redisflow.model.analytics.shares import mean, percent
from redisflow.model.analytics.window import EventTypes
from redisflow.model.events import BaseEvent, StepCompleted, StepFailed, StepRetrying


class _Retried:
    """What became of one step: retried yet, succeeded or failed since, and its highest attempt that ended."""

    __slots__ = ("failed", "highest", "retried", "succeeded")

    def __init__(self) -> None:
        self.retried = self.succeeded = self.failed = False
        self.highest = 0


class RetryAnalysisCounter:
    """What became of steps after their first retry."""

    counted: ClassVar[EventTypes] = (StepRetrying, StepCompleted, StepFailed)

    def __init__(self) -> None:
        self._retries = 0
        self._steps: dict[tuple[str, str], _Retried] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if not isinstance(event, StepRetrying | StepCompleted | StepFailed):
            return
        step = self._steps.setdefault((event.run_id, event.step_id), _Retried())
        if isinstance(event, StepRetrying):
            self._retries += 1
            step.retried = True
            return
        step.highest = max(step.highest, event.attempt_number)
        if step.retried and isinstance(event, StepCompleted):
            step.succeeded |= event.attempt_number > 1
        elif step.retried and isinstance(event, StepFailed):
            step.failed |= event.terminal

    def result(self) -> RetryAnalysis:
        """The figures so far; a step that both failed for good and succeeded counts as succeeded."""
        succeeded = [step.highest for step in self._steps.values() if step.succeeded]
        failed = [step.highest for step in self._steps.values() if step.failed and not step.succeeded]
        return RetryAnalysis(
            total_retries=self._retries,
            retries_succeeded=len(succeeded),
            retries_failed=len(failed),
            average_attempts_before_success=mean(sum(succeeded), len(succeeded)),
            average_attempts_before_failure=mean(sum(failed), len(failed)),
            retry_effectiveness_rate=percent(len(succeeded), len(succeeded) + len(failed)),
        )
