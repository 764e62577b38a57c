"""Figures over events: how long, how often, how well, and which errors.

Each figure is a small counter that takes one event at a time (`add`) and gives a frozen result (`result`), so
that a backend can stream any window through it without holding the events; a function over an iterable stands
on each. Counters for rates hold a few integers, those for percentiles one integer a sample, those for
retries, latencies and errors an entry a step, attempt or failure.

They count events, not states: late and repeated ends count too. Which events are counted is the caller's
choice, `Window` is the usual one; `workflow_slug` and `step_id` given to a result are only echoed. Times and
durations are in µs, percentages from 0 to 100, and no samples give zeros.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from redisflow.model.errors import InvalidArgument
from redisflow.model.events import (
    BaseEvent,
    BaseStepEvent,
    StepCompleted,
    StepFailed,
    StepFailureReason,
    StepReclaimed,
    StepRetrying,
    StepScheduled,
    StepSkipped,
    StepStarted,
    WireModel,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
)
from redisflow.model.fingerprints import GROUPINGS, UNNAMED, Grouping, compose, parse_fingerprint

TOP: Final = 10
"""How many of the most common errors and the most unstable workers are listed."""
_HOUR_US: Final = 3_600_000_000


class ReasonShare(WireModel):
    """How many failures had a reason; `percentage` of all failures."""

    failure_reason: StepFailureReason
    count: int
    percentage: float


class ErrorOccurrence(WireModel):
    """Where and when a step failed."""

    workflow_slug: str
    run_id: str
    step_id: str
    attempt_number: int
    timestamp_us: int


class CommonError(WireModel):
    """Failures with one message; the reason is that of the first."""

    message: str
    count: int
    failure_reason: str
    last_occurrence: int
    occurrences: tuple[ErrorOccurrence, ...] | None = None


class ErrorAnalysis(WireModel):
    """Failures by reason and by message."""

    workflow_slug: str | None = None
    step_id: str | None = None
    total_failures: int
    unique_errors: int
    breakdown_by_reason: tuple[ReasonShare, ...]
    most_common_errors: tuple[CommonError, ...]
    first_failure: int | None = None
    last_failure: int | None = None


class RetryAnalysis(WireModel):
    """Whether retries help."""

    total_retries: int
    retries_succeeded: int
    retries_failed: int
    average_attempts_before_success: float
    average_attempts_before_failure: float
    retry_effectiveness_rate: float


class WorkflowDuration(WireModel):
    """Statistics of durations of runs, from submission to end."""

    workflow_slug: str | None = None
    count: int
    average_us: float
    median_us: int
    p95_us: int
    p99_us: int
    min_us: int
    max_us: int


class StepDuration(WorkflowDuration):
    """Statistics of durations of step attempts."""

    step_id: str | None = None


class SchedulingLatency(StepDuration):
    """Statistics of the time that steps waited for a worker after they could have run."""


class UnstableWorker(WireModel):
    """A worker that steps were taken from."""

    worker_id: str
    reclamation_count: int


class WorkerStability(WireModel):
    """Steps taken back from workers that had stopped sending heartbeats."""

    total_reclamations: int
    unique_workers_with_reclamations: int
    steps_reclaimed_by_worker: dict[str, int]
    average_stale_time_us: float
    most_unstable_workers: tuple[UnstableWorker, ...]


class Throughput(WireModel):
    """Ends in a time range, and an hour."""

    workflow_slug: str | None = None
    time_range_us: int
    runs_completed: int
    runs_failed: int
    steps_completed: int
    steps_failed: int
    steps_skipped: int
    runs_per_hour: float
    steps_per_hour: float


class SuccessRate(WireModel):
    """Ends of runs and steps by kind; rates in percent of all ends."""

    workflow_slug: str | None = None
    step_id: str | None = None
    total_runs: int
    successful_runs: int
    failed_runs: int
    cancelled_runs: int
    success_rate: float
    failure_rate: float
    total_steps: int
    successful_steps: int
    failed_steps: int
    skipped_steps: int
    step_success_rate: float
    step_failure_rate: float


class QueueDepth(WireModel):
    """What waits and runs now; scheduled steps include those not yet due."""

    workflow_slug: str | None = None
    pending_runs: int
    running_runs: int
    scheduled_steps: int
    running_steps: int
    oldest_scheduled_step_us: int | None = None
    oldest_pending_run_us: int | None = None


class WorkflowQueueDepth(WireModel):
    """What waits now in one workflow."""

    workflow_slug: str
    workflow_name: str | None = None
    pending_runs: int
    scheduled_steps: int
    oldest_pending_item_us: int | None = None


class ActiveStep(WireModel):
    """A step that a worker runs now."""

    workflow_slug: str
    run_id: str
    step_id: str
    started_at_us: int
    last_heartbeat_us: int
    slot_index: int | None = None


class ActiveWorker(WireModel):
    """A worker: what it runs and what it has done."""

    worker_id: str
    last_seen_us: int
    currently_running_steps: int
    total_steps_processed: int
    failed_steps: int
    reclaimed_from_count: int
    active_steps: tuple[ActiveStep, ...]
    worker_concurrency: int | None = None


class ActiveWorkersResult(WireModel):
    """Workers; `total_active_workers` counts those that run a step."""

    workers: tuple[ActiveWorker, ...]
    total_active_workers: int
    total_running_steps: int
    stale_threshold_us: int


class TimeRange(WireModel):
    """From and to, both inclusive, in µs since the epoch."""

    start_us: int
    end_us: int
    duration_us: int


class AnalyticsSummary(WireModel):
    """All figures of one window; `queue_depth` is of now."""

    time_range: TimeRange
    error_analysis: ErrorAnalysis
    retry_analysis: RetryAnalysis
    scheduling_latency: SchedulingLatency
    step_duration: StepDuration
    workflow_duration: WorkflowDuration
    worker_stability: WorkerStability
    throughput: Throughput
    queue_depth: QueueDepth
    success_rate: SuccessRate


class ErrorGroup(WireModel):
    """Failures of one fingerprint; message, name and stack of the first, `affected_runs` counts runs."""

    fingerprint: str
    error_message: str
    error_name: str
    sample_stack: str
    count: int
    affected_runs: int
    first_seen: int
    last_seen: int


class ErrorsList(WireModel):
    """A page of error groups; `total` counts them before paging."""

    errors: tuple[ErrorGroup, ...]
    total: int


class ErrorDetail(WireModel):
    """One error group with a page of its occurrences, newest first; message, name and stack of the newest."""

    fingerprint: str
    error_message: str
    error_name: str
    sample_stack: str
    total_count: int
    affected_runs: int
    first_seen: int
    last_seen: int
    occurrences: tuple[ErrorOccurrence, ...]
    total: int


class Window(NamedTuple):
    """Which events are counted: those in [start, end] (µs, inclusive) that fit all filters given.

    With a `step_id` only step events fit, so the figures of runs are 0.
    """

    start_us: int
    end_us: int
    workflow_slug: str | None = None
    step_id: str | None = None
    run_ids: frozenset[str] | None = None

    def holds(self, event: BaseEvent) -> bool:
        """Whether the event is counted."""
        return (
            self.start_us <= event.timestamp_us <= self.end_us
            and (self.workflow_slug is None or event.workflow_slug == self.workflow_slug)
            and (self.run_ids is None or event.run_id in self.run_ids)
            and (self.step_id is None or (isinstance(event, BaseStepEvent) and event.step_id == self.step_id))
        )


class Counter(Protocol):
    """What every counter has; `result` differs in its arguments."""

    def add(self, event: BaseEvent) -> None:
        """Count an event; those that do not matter are passed by."""


_C = TypeVar("_C", bound=Counter)


def feed(counter: _C, events: Iterable[BaseEvent]) -> _C:
    """Count events in order; returns the counter."""
    for event in events:
        counter.add(event)
    return counter


def percentile(ascending: list[int], q: float) -> int:
    """The item at floor(n·q), the last where that runs over; 0 of nothing."""
    return ascending[min(int(len(ascending) * q), len(ascending) - 1)] if ascending else 0


def _mean(total: int, count: int) -> float:
    return total / count if count else 0.0


def _percent(part: int, whole: int) -> float:
    return part / whole * 100 if whole else 0.0


def _statistics(values: Iterable[int]) -> dict[str, Any]:
    ordered = sorted(values)
    return {
        "count": len(ordered),
        "average_us": _mean(sum(ordered), len(ordered)),
        "median_us": percentile(ordered, 0.5),
        "p95_us": percentile(ordered, 0.95),
        "p99_us": percentile(ordered, 0.99),
        "min_us": ordered[0] if ordered else 0,
        "max_us": ordered[-1] if ordered else 0,
    }


class StepDurationCounter:
    """Durations of every completed or failed attempt, terminal or not."""

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


class WorkerStabilityCounter:
    """Reclaimed steps by the worker they were taken from."""

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
            average_stale_time_us=_mean(self._stale_us, total),
            most_unstable_workers=tuple(
                UnstableWorker(worker_id=worker, reclamation_count=count) for worker, count in ranked
            ),
        )


class EndsCounter:
    """Ends of runs and of steps by kind: what throughput and success rate have in common."""

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
            success_rate=_percent(self.runs_completed, runs),
            failure_rate=_percent(self.runs_failed, runs),
            total_steps=steps,
            successful_steps=self.steps_completed,
            failed_steps=self.steps_failed,
            skipped_steps=self.steps_skipped,
            step_success_rate=_percent(self.steps_completed, steps),
            step_failure_rate=_percent(self.steps_failed, steps),
        )


def _occurrence(event: StepFailed) -> ErrorOccurrence:
    return ErrorOccurrence(
        workflow_slug=event.workflow_slug,
        run_id=event.run_id,
        step_id=event.step_id,
        attempt_number=event.attempt_number,
        timestamp_us=event.timestamp_us,
    )


class ErrorAnalysisCounter:
    """Every failure, terminal or not, by reason and by message alone."""

    def __init__(self) -> None:
        self._reasons: dict[StepFailureReason, int] = {}
        self._messages: dict[str, tuple[StepFailureReason, list[ErrorOccurrence]]] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepFailed):
            reason = event.failure_reason
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
            _, occurrences = self._messages.setdefault(event.error.message, (reason, []))
            occurrences.append(_occurrence(event))

    def result(self, workflow_slug: str | None = None, step_id: str | None = None) -> ErrorAnalysis:
        """The figures so far; the most common messages come first, then first seen first."""
        total = sum(self._reasons.values())
        ranked = sorted(self._messages.items(), key=lambda item: -len(item[1][1]))[:TOP]
        times = [seen.timestamp_us for _, group in self._messages.values() for seen in group]
        return ErrorAnalysis(
            workflow_slug=workflow_slug,
            step_id=step_id,
            total_failures=total,
            unique_errors=len(self._messages),
            breakdown_by_reason=tuple(
                ReasonShare(failure_reason=reason, count=count, percentage=_percent(count, total))
                for reason, count in self._reasons.items()
            ),
            most_common_errors=tuple(
                CommonError(
                    message=message,
                    count=len(group),
                    failure_reason=reason,
                    last_occurrence=max(seen.timestamp_us for seen in group),
                    occurrences=tuple(group),
                )
                for message, (reason, group) in ranked
            ),
            first_failure=min(times, default=None),
            last_failure=max(times, default=None),
        )


class _Retried:
    """What became of one step: retried yet, succeeded or failed since, and its highest attempt that ended."""

    __slots__ = ("failed", "highest", "retried", "succeeded")

    def __init__(self) -> None:
        self.retried = self.succeeded = self.failed = False
        self.highest = 0


class RetryAnalysisCounter:
    """What became of steps after their first retry."""

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
            average_attempts_before_success=_mean(sum(succeeded), len(succeeded)),
            average_attempts_before_failure=_mean(sum(failed), len(failed)),
            retry_effectiveness_rate=_percent(len(succeeded), len(succeeded) + len(failed)),
        )


class _Group:
    """Failures of one fingerprint, in a few fields."""

    __slots__ = ("count", "first", "first_seen", "last_seen", "runs")

    def __init__(self, first: StepFailed) -> None:
        self.first = first
        self.count = 0
        self.runs: set[str] = set()
        self.first_seen = self.last_seen = first.timestamp_us

    def add(self, event: StepFailed) -> None:
        self.count += 1
        self.runs.add(event.run_id)
        self.first_seen = min(self.first_seen, event.timestamp_us)
        self.last_seen = max(self.last_seen, event.timestamp_us)


class ErrorsListCounter:
    """Failures grouped by the hashes stored in them.

    Raises:
        InvalidArgument: the grouping is none of ours.
    """

    def __init__(self, grouping: Grouping = "exact") -> None:
        self._grouping = _checked_grouping(grouping)
        self._groups: dict[str, _Group] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepFailed):
            key = compose(event.error_fingerprints, self._grouping)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(event)
            group.add(event)

    def result(self, limit: int = 50, offset: int = 0) -> ErrorsList:
        """A page of groups: most failures first, then first seen first."""
        ranked = sorted(self._groups.items(), key=lambda item: -item[1].count)
        page = tuple(
            ErrorGroup(
                fingerprint=key,
                error_message=group.first.error.message,
                error_name=group.first.error.name or UNNAMED,
                sample_stack=group.first.error.stack or "",
                count=group.count,
                affected_runs=len(group.runs),
                first_seen=group.first_seen,
                last_seen=group.last_seen,
            )
            for key, group in ranked[offset : offset + limit]
        )
        return ErrorsList(errors=page, total=len(ranked))


class ErrorDetailCounter:
    """The failures of one fingerprint.

    Raises:
        InvalidArgument: the fingerprint has not three parts, or the grouping is none of ours.
    """

    def __init__(self, fingerprint: str, grouping: Grouping = "exact") -> None:
        parse_fingerprint(fingerprint)
        self._fingerprint = fingerprint
        self._grouping = _checked_grouping(grouping)
        self._seen: list[tuple[int, int, ErrorOccurrence]] = []
        self._newest: StepFailed | None = None

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if not isinstance(event, StepFailed):
            return
        if compose(event.error_fingerprints, self._grouping) != self._fingerprint:
            return
        self._seen.append((event.timestamp_us, int(event.event_id), _occurrence(event)))
        if self._newest is None or _age(event) >= _age(self._newest):
            self._newest = event

    def result(self, limit: int = 100, offset: int = 0) -> ErrorDetail:
        """The group with a page of its occurrences; zeros and empty strings where nothing matched."""
        newest_first = sorted(self._seen, key=lambda seen: seen[:2], reverse=True)
        occurrences = tuple(occurrence for _, _, occurrence in newest_first)
        error = self._newest.error if self._newest else None
        return ErrorDetail(
            fingerprint=self._fingerprint,
            error_message=error.message if error else "",
            error_name=(error.name or UNNAMED) if error else "",
            sample_stack=(error.stack or "") if error else "",
            total_count=len(occurrences),
            affected_runs=len({occurrence.run_id for occurrence in occurrences}),
            first_seen=occurrences[-1].timestamp_us if occurrences else 0,
            last_seen=occurrences[0].timestamp_us if occurrences else 0,
            occurrences=occurrences[offset : offset + limit],
            total=len(occurrences),
        )


def _age(event: StepFailed) -> tuple[int, int]:
    return event.timestamp_us, int(event.event_id)


def _checked_grouping(grouping: Grouping) -> Grouping:
    if grouping not in GROUPINGS:
        raise InvalidArgument("grouping_strategy", grouping, f"one of {', '.join(GROUPINGS)}")
    return grouping


class SummaryCounter:
    """All figures of one window at once."""

    def __init__(self) -> None:
        self._errors = ErrorAnalysisCounter()
        self._retries = RetryAnalysisCounter()
        self._latency = SchedulingLatencyCounter()
        self._steps = StepDurationCounter()
        self._runs = WorkflowDurationCounter()
        self._workers = WorkerStabilityCounter()
        self._ends = EndsCounter()
        self._all: tuple[Counter, ...] = (
            self._errors,
            self._retries,
            self._latency,
            self._steps,
            self._runs,
            self._workers,
            self._ends,
        )

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        for counter in self._all:
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
