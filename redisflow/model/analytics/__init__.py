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

from redisflow.model.analytics.durations import (
    SchedulingLatencyCounter,
    StepDurationCounter,
    WorkflowDurationCounter,
    percentile,
)
from redisflow.model.analytics.ends import EndsCounter
from redisflow.model.analytics.errors import ErrorAnalysisCounter, ErrorDetailCounter, ErrorsListCounter
from redisflow.model.analytics.functions import (
    error_analysis,
    error_detail,
    errors_list,
    retry_analysis,
    scheduling_latency,
    step_duration,
    success_rate,
    throughput,
    worker_stability,
    workflow_duration,
)
from redisflow.model.analytics.results import (
    TOP,
    ActiveStep,
    ActiveWorker,
    ActiveWorkersResult,
    AnalyticsSummary,
    CommonError,
    ErrorAnalysis,
    ErrorDetail,
    ErrorGroup,
    ErrorOccurrence,
    ErrorsList,
    QueueDepth,
    ReasonShare,
    RetryAnalysis,
    SchedulingLatency,
    StepDuration,
    SuccessRate,
    Throughput,
    TimeRange,
    UnstableWorker,
    WorkerStability,
    WorkflowDuration,
    WorkflowQueueDepth,
)
from redisflow.model.analytics.retries import RetryAnalysisCounter
from redisflow.model.analytics.summary import SummaryCounter
from redisflow.model.analytics.window import Counter, EventTypes, Window, counted_names, feed
from redisflow.model.analytics.workers import WorkerStabilityCounter

__all__ = [
    "TOP",
    "ActiveStep",
    "ActiveWorker",
    "ActiveWorkersResult",
    "AnalyticsSummary",
    "CommonError",
    "Counter",
    "EndsCounter",
    "ErrorAnalysis",
    "ErrorAnalysisCounter",
    "ErrorDetail",
    "ErrorDetailCounter",
    "ErrorGroup",
    "ErrorOccurrence",
    "ErrorsList",
    "ErrorsListCounter",
    "EventTypes",
    "QueueDepth",
    "ReasonShare",
    "RetryAnalysis",
    "RetryAnalysisCounter",
    "SchedulingLatency",
    "SchedulingLatencyCounter",
    "StepDuration",
    "StepDurationCounter",
    "SuccessRate",
    "SummaryCounter",
    "Throughput",
    "TimeRange",
    "UnstableWorker",
    "Window",
    "WorkerStability",
    "WorkerStabilityCounter",
    "WorkflowDuration",
    "WorkflowDurationCounter",
    "WorkflowQueueDepth",
    "counted_names",
    "error_analysis",
    "error_detail",
    "errors_list",
    "feed",
    "percentile",
    "retry_analysis",
    "scheduling_latency",
    "step_duration",
    "success_rate",
    "throughput",
    "worker_stability",
    "workflow_duration",
]
