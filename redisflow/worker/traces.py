"""A span an attempt, around the body of the step; only where a tracer provider is set when the worker starts.

An attempt needs what the claim does not carry: the trace context of the submission, and the spans of attempts before. So a traced
worker reads the first entry of each run once, and of a retried step the latest entries. What goes wrong with that costs the span,
never the step.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.traces import failed_attempts, submission_context, with_traceparent
from redisflow.model.errors import RedisflowError
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")
OUTCOMES = {"c": "completed", "f": "failed", "k": "skipped", "l": "released"}
REMEMBERED = 4096  # runs whose context is kept
Body = Callable[[Job], Awaitable[None]]
Report = Callable[..., None]


class StepTraces:
    """Makes the spans of one worker.

    Args:
        backend: opened.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._contexts: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()
        self._spans: dict[tuple[bytes, bytes, int], Any] = {}

    async def run(self, job: Job, body: Body) -> None:
        """Run the body of an attempt within its span."""
        try:
            info = await self._backend.plan_info(job.partition, job.number)
            parent = await self._context_of(job)
            run, step = job.run.decode(), job.step.decode()
            earlier = await failed_attempts(self._backend, run, step) if job.attempt > 1 else []
        except RedisflowError as error:
            log.warning("a step runs without a span: %s", error)
            await body(job)
            return
        job.started = time.perf_counter()  # what the span cost is not the step's
        with tracing.processing(info.slug, run, step, job.attempt, parent=parent, earlier=earlier) as span:
            self._spans[job.key] = span
            try:
                await body(job)
            finally:
                if self._spans.pop(job.key, None) is not None:
                    tracing.ended(span, "stopped")

    def watch(self, report: Report) -> Report:
        """The worker's `report`, which tells the span first; a failure names its span for the attempts that follow."""

        def watched(job: Job, kind: str, data: bytes, payload: str | bytes = b"", how: str = "") -> None:
            span = self._spans.pop(job.key, None)
            if span is not None:
                failed = kind == "f"
                tracing.ended(span, OUTCOMES[kind], sys.exception() if failed else None)
                if failed:
                    data = with_traceparent(data, tracing.carrier().get("traceparent"))
            report(job, kind, data, payload, how)

        return watched

    async def _context_of(self, job: Job) -> Mapping[str, Any]:
        found = self._contexts.get(job.run)
        if found is None:
            found = self._contexts[job.run] = await submission_context(self._backend, job.run.decode())
            if len(self._contexts) > REMEMBERED:
                self._contexts.popitem(last=False)
        return found
