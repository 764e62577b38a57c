"""What the figures are: frozen results with the wire form of the contract.

Times and durations are in µs, percentages from 0 to 100; where nothing was counted a figure is 0, and what
has no value is absent. `workflow_slug` and `step_id` say what was asked for.
"""

from __future__ import annotations

from typing import Final

from redisflow.model.events import StepFailureReason, WireModel

TOP: Final = 10
"""How many of the most common errors and the most unstable workers are listed."""


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
