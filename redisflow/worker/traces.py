"""A span an attempt, around the body of the step, and the span of a run that ends by it; only where a tracer provider is set.

An attempt needs what the claim does not carry: the trace context of the submission, the run's attempt, and the spans of attempts
before. So a traced worker reads the first entry of each run once, its header with each step, and of a retried step the latest
entries. Once an outcome is answered it reads the header again: the worker whose outcome ended the run exports the span of the run.
What goes wrong with any of that costs the span, never the step.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.traces import earlier_attempts, export_end, traced_run, with_traceparent
from redisflow.backend.replies import Reply
from redisflow.model.errors import RedisflowError
from redisflow.tracing import Execution, TracedRun
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")
OUTCOMES = {"c": "completed", "f": "failed", "k": "skipped", "l": "released"}
REMEMBERED = 4096  # runs whose context is kept
Body = Callable[[Job], Awaitable[None]]
Report = Callable[..., None]
Settled = Callable[[Job, Reply], None]


class StepTraces:
    """Makes the spans of one worker.

    Args:
        backend: opened.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._contexts: OrderedDict[bytes, Mapping[str, Any]] = OrderedDict()
        self._spans: dict[tuple[bytes, bytes, int], Any] = {}
        self._looking: set[asyncio.Task[bool]] = set()

    async def close(self) -> None:
        """Wait until the spans of ended runs are out."""
        await asyncio.gather(*self._looking)

    async def run(self, job: Job, body: Body) -> None:
        """Run the body of an attempt within its span."""
        try:
            run, step = await self._run_of(job), job.step.decode()
            earlier = await earlier_attempts(self._backend, run.id, step) if job.attempt > 1 else []
        except RedisflowError as error:
            log.warning("a step runs without a span: %s", error)
            await body(job)
            return
        execution = Execution(step, job.attempt, job.lease)
        job.started = time.perf_counter()  # what the span cost is not the step's
        with tracing.processing(run, execution, earlier=earlier) as span:
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

    def watch_settled(self, settled: Settled) -> Settled:
        """The worker's `settled`, after which it is seen whether the outcome ended the run."""

        def watched(job: Job, reply: Reply) -> None:
            settled(job, reply)
            if reply == Reply.OK:
                by, known = (job.step.decode(), job.attempt), self._contexts.get(job.run)
                look = asyncio.get_running_loop().create_task(export_end(self._backend, job.run.decode(), by, known))
                self._looking.add(look)
                look.add_done_callback(self._looking.discard)

        return watched

    async def _run_of(self, job: Job) -> TracedRun:
        known = self._contexts.get(job.run)
        found = await traced_run(self._backend, job.run.decode(), known)
        if found is None:
            raise RedisflowError(f"run {job.run.decode()} is gone")
        if known is None:
            self._contexts[job.run] = found[0].submission
            if len(self._contexts) > REMEMBERED:
                self._contexts.popitem(last=False)
        return found[0]
