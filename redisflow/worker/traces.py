"""A span an attempt, around the body of the step, and the span of a run that ends by it; only where a tracer provider is set.

An attempt needs what the claim does not carry: the trace context of the submission, the run's attempt, and the spans of attempts
before. So a traced worker reads the first entry of each run once, its header with each step, and of a retried step the latest
entries; what is wanted at once is read in one round trip. Once an outcome is answered it reads the header again: the worker whose
outcome ended the run exports the span of the run. What goes wrong with any of that costs the span, never the step.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Generic, TypeVar

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.traces import (
    earlier_attempts,
    export_end,
    latest_entries,
    traced_runs,
    with_traceparent,
)
from redisflow.backend.replies import Reply
from redisflow.model.errors import RedisflowError
from redisflow.tracing import Execution, TracedRun
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")
OUTCOMES = {"c": "completed", "f": "failed", "k": "skipped", "l": "released"}
REMEMBERED = 4096  # runs whose context is kept
Body = Callable[[Job], Awaitable[None]]
Report = Callable[..., None]
T = TypeVar("T")
Settled = Callable[[Job, Reply], None]


class Together(Generic[T]):
    """Reads by run id; what is asked for while a read is under way goes with the next.

    Args:
        read: gives what it found for some ids, in one round trip.
    """

    def __init__(self, read: Callable[[list[str]], Awaitable[dict[str, T]]]) -> None:
        self._read = read
        self._wanted: dict[str, asyncio.Future[T | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def get(self, run_id: str) -> T | None:
        """What is found for a run; None where it is gone or cannot be read."""
        loop = asyncio.get_running_loop()
        wanted = self._wanted.get(run_id)
        if wanted is None:
            wanted = self._wanted[run_id] = loop.create_future()
        if self._reading is None or self._reading.done():
            self._reading = loop.create_task(self._serve())
        return await asyncio.shield(wanted)

    async def _serve(self) -> None:
        while self._wanted:
            batch, self._wanted = self._wanted, {}
            found: dict[str, T] = {}
            try:
                found = await self._read(list(batch))
            except RedisflowError as error:
                log.warning("no spans for what runs now: %s", error)
            finally:
                for run_id, wanted in batch.items():
                    wanted.set_result(found.get(run_id))


class StepTraces:
    """Makes the spans of one worker.

    Args:
        backend: opened.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._submissions: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._runs = Together(self._read_runs)
        self._latest = Together(partial(latest_entries, backend))
        self._spans: dict[tuple[bytes, bytes, int], Any] = {}
        self._looking: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until the spans of ended runs are out."""
        await asyncio.gather(*self._looking)

    async def run(self, job: Job, body: Body) -> None:
        """Run the body of an attempt within its span."""
        run_id, step = job.run.decode(), job.step.decode()
        found = await self._runs.get(run_id)
        try:
            earlier = await earlier_attempts(self._backend, run_id, step) if job.attempt > 1 else []
        except RedisflowError as error:
            log.warning("an attempt has no links: %s", error)
            earlier = []
        if found is None:
            await body(job)
            return
        execution = Execution(step, job.attempt, job.lease)
        job.started = time.perf_counter()  # what the span cost is not the step's
        with tracing.processing(found[0], execution, earlier=earlier) as span:
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
                look = asyncio.get_running_loop().create_task(self._look(job))
                self._looking.add(look)
                look.add_done_callback(self._looking.discard)

        return watched

    async def _look(self, job: Job) -> None:
        found = await self._runs.get(job.run.decode())
        if found is not None and found[1]:
            entries = await self._latest.get(found[0].id)
            export_end(found[0], entries or [], (job.step.decode(), job.attempt))

    async def _read_runs(self, run_ids: list[str]) -> dict[str, tuple[TracedRun, bool]]:
        found = await traced_runs(self._backend, run_ids, self._submissions)
        for run_id, (run, _) in found.items():
            self._submissions[run_id] = run.submission
        while len(self._submissions) > REMEMBERED:
            self._submissions.popitem(last=False)
        return found
