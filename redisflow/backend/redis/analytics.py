"""Figures over the runs of a namespace; what each one means is said in `redisflow/model/analytics`.

A figure is a counter that is fed with the events of a window (`walk.py`); failures come from their index
instead (`error_queries.py`), queue depths from what stands in queues now (`depth.py`), and the last hours at a glance from counters
(`rollups.py`). All take the options
of `Walk.window`: `start_us` (24 hours ago by default), `end_us` (now), `workflow_slug`, `step_id` and
`run_ids`. Nothing is written, and the engine goes on meanwhile: a run that moves is counted as it was when
its stream was read.
"""

from __future__ import annotations

from typing_extensions import Unpack

from redisflow.backend.redis.rollups import RollupQueries
from redisflow.backend.redis.walk import WindowOptions
from redisflow.model.analytics import (
    AnalyticsSummary,
    EndsCounter,
    ErrorAnalysisCounter,
    RetryAnalysis,
    RetryAnalysisCounter,
    SchedulingLatency,
    SchedulingLatencyCounter,
    StepDuration,
    StepDurationCounter,
    SuccessRate,
    SummaryCounter,
    Throughput,
    WorkerStability,
    WorkerStabilityCounter,
    WorkflowDuration,
    WorkflowDurationCounter,
)


class Analytics(RollupQueries):
    """The figures of a window; each raises `InvalidArgument` for options that make none."""

    async def get_retry_analysis(self, **options: Unpack[WindowOptions]) -> RetryAnalysis:
        """Whether retries help."""
        counter, _ = await self.fold(RetryAnalysisCounter(), **options)
        return counter.result()

    async def get_scheduling_latency(self, **options: Unpack[WindowOptions]) -> SchedulingLatency:
        """How long attempts waited for a worker after they could have run."""
        counter, window = await self.fold(SchedulingLatencyCounter(), **options)
        return counter.result(window.workflow_slug, window.step_id)

    async def get_step_duration(self, **options: Unpack[WindowOptions]) -> StepDuration:
        """How long attempts took that completed or failed."""
        counter, window = await self.fold(StepDurationCounter(), **options)
        return counter.result(window.workflow_slug, window.step_id)

    async def get_workflow_duration(self, **options: Unpack[WindowOptions]) -> WorkflowDuration:
        """How long runs took from submission to end."""
        counter, window = await self.fold(WorkflowDurationCounter(), **options)
        return counter.result(window.workflow_slug)

    async def get_worker_stability(self, **options: Unpack[WindowOptions]) -> WorkerStability:
        """Steps taken back from workers that had died."""
        counter, _ = await self.fold(WorkerStabilityCounter(), **options)
        return counter.result()

    async def get_throughput(self, **options: Unpack[WindowOptions]) -> Throughput:
        """Ends of runs and steps in the window, and an hour."""
        counter, window = await self.fold(EndsCounter(), **options)
        return counter.throughput(window.end_us - window.start_us, window.workflow_slug)

    async def get_success_rate(self, **options: Unpack[WindowOptions]) -> SuccessRate:
        """Ends of runs and steps by kind."""
        counter, window = await self.fold(EndsCounter(), **options)
        return counter.success_rate(window.workflow_slug, window.step_id)

    async def get_analytics_summary(self, **options: Unpack[WindowOptions]) -> AnalyticsSummary:
        """All figures of the window at once, and the queue depth of now."""
        window = await self.window(**options)
        errors = await self.fold_failures(ErrorAnalysisCounter(), window)
        counter = await self.fold_window(SummaryCounter(errors), window)
        return counter.result(window, await self.get_queue_depth(window.workflow_slug))
