"""All figures of one window at once."""

from __future__ import annotations

from typing import ClassVar

from redisflow.model.analytics.durations import (
    SchedulingLatencyCounter,
    StepDurationCounter,
    WorkflowDurationCounter,
)
from redisflow.model.analytics.ends import EndsCounter
from redisflow.model.analytics.errors import ErrorAnalysisCounter
from redisflow.model.analytics.results import AnalyticsSummary, QueueDepth, TimeRange
from redisflow.model.analytics.retries import RetryAnalysisCounter
from redisflow.model.analytics.window import Counter, EventTypes, Window
from redisflow.model.analytics.workers import WorkerStabilityCounter
from redisflow.model.events import BaseEvent


class SummaryCounter:
    """Every counter of a summary, each given only the events that matter to it.

    Args:
        errors: a counter of failures that somebody else feeds; by default the summary has and feeds its own.
    """

    counted: ClassVar[EventTypes] = tuple(
        {
            model: None
            for counter in (
                ErrorAnalysisCounter,
                RetryAnalysisCounter,
                SchedulingLatencyCounter,
                StepDurationCounter,
                WorkflowDurationCounter,
                WorkerStabilityCounter,
                EndsCounter,
            )
            for model in counter.counted
        }
    )

    def __init__(self, errors: ErrorAnalysisCounter | None = None) -> None:
        self._errors = errors or ErrorAnalysisCounter()
        self._retries = RetryAnalysisCounter()
        self._latency = SchedulingLatencyCounter()
        self._steps = StepDurationCounter()
        self._runs = WorkflowDurationCounter()
        self._workers = WorkerStabilityCounter()
        self._ends = EndsCounter()
        fed: list[Counter] = [] if errors else [self._errors]
        fed += [self._retries, self._latency, self._steps, self._runs, self._workers, self._ends]
        self._by_type = {model: tuple(counter for counter in fed if model in counter.counted) for model in self.counted}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        for counter in self._by_type.get(type(event), ()):
            counter.add(event)

    def result(self, window: Window, queue_depth: QueueDepth) -> AnalyticsSummary:
        """The figures so far, with the window's slug and step echoed; `queue_depth` is passed through."""
        slug, step = window.workflow_slug, window.step_id
        length = window.end_us - window.start_us
        return AnalyticsSummary(
            time_range=TimeRange(start_us=window.start_us, end_us=window.end_us, duration_us=length),
            error_analysis=self._errors.result(slug, step),
            retry_analysis=self._retries.result(),
            scheduling_latency=self._latency.result(slug, step),
            step_duration=self._steps.result(slug, step),
            workflow_duration=self._runs.result(slug),
            worker_stability=self._workers.result(),
            throughput=self._ends.throughput(length, slug),
            queue_depth=queue_depth,
            success_rate=self._ends.success_rate(slug, step),
        )
