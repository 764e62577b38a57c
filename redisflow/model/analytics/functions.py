"""Each figure as a function over events."""

from __future__ import annotations

from collections.abc import Iterable

from redisflow.model.analytics.durations import (
    SchedulingLatencyCounter,
    StepDurationCounter,
    WorkflowDurationCounter,
)
from redisflow.model.analytics.ends import EndsCounter
from redisflow.model.analytics.errors import ErrorAnalysisCounter, ErrorDetailCounter, ErrorsListCounter
from redisflow.model.analytics.results import (
    ErrorAnalysis,
    ErrorDetail,
    ErrorsList,
    RetryAnalysis,
    SchedulingLatency,
    StepDuration,
    SuccessRate,
    Throughput,
    WorkerStability,
    WorkflowDuration,
)
from redisflow.model.analytics.retries import RetryAnalysisCounter
from redisflow.model.analytics.window import feed
from redisflow.model.analytics.workers import WorkerStabilityCounter
from redisflow.model.events import BaseEvent
from redisflow.model.fingerprints import Grouping


def error_analysis(events: Iterable[BaseEvent]) -> ErrorAnalysis:
    """Failures by reason and by message."""
    return feed(ErrorAnalysisCounter(), events).result()


def retry_analysis(events: Iterable[BaseEvent]) -> RetryAnalysis:
    """What became of steps after their first retry."""
    return feed(RetryAnalysisCounter(), events).result()


def scheduling_latency(events: Iterable[BaseEvent]) -> SchedulingLatency:
    """How long attempts waited for a worker after they could have run."""
    return feed(SchedulingLatencyCounter(), events).result()


def step_duration(events: Iterable[BaseEvent]) -> StepDuration:
    """Durations of attempts that completed or failed."""
    return feed(StepDurationCounter(), events).result()


def workflow_duration(events: Iterable[BaseEvent]) -> WorkflowDuration:
    """Durations of runs that ended."""
    return feed(WorkflowDurationCounter(), events).result()


def worker_stability(events: Iterable[BaseEvent]) -> WorkerStability:
    """Steps reclaimed, by worker."""
    return feed(WorkerStabilityCounter(), events).result()


def throughput(events: Iterable[BaseEvent], time_range_us: int) -> Throughput:
    """Ends in a range of this length in µs, and an hour."""
    return feed(EndsCounter(), events).throughput(time_range_us)


def success_rate(events: Iterable[BaseEvent]) -> SuccessRate:
    """Shares of the kinds of ends."""
    return feed(EndsCounter(), events).success_rate()


def errors_list(
    events: Iterable[BaseEvent], grouping: Grouping = "exact", *, limit: int = 50, offset: int = 0
) -> ErrorsList:
    """A page of failures grouped by their stored hashes; raises `InvalidArgument` for an unknown grouping."""
    return feed(ErrorsListCounter(grouping), events).result(limit, offset)


def error_detail(
    events: Iterable[BaseEvent],
    fingerprint: str,
    grouping: Grouping = "exact",
    *,
    limit: int = 100,
    offset: int = 0,
) -> ErrorDetail:
    """The failures of one fingerprint, newest first; raises `InvalidArgument` for one without three parts."""
    return feed(ErrorDetailCounter(fingerprint, grouping), events).result(limit, offset)
