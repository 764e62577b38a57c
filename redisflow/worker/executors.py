"""Running a step's body and turning its end into an outcome.

A claimed job passes through small steps: find its code, open its resources, bind its arguments, run it (on the loop, or in a
thread), describe how it ended. Nothing that a body does may escape: whatever is raised becomes an outcome, save the cancellation
that the worker itself asked for.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from contextvars import copy_context
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.recording import Note, Recording
from redisflow.backend.redis.steps import failure_parts, skip_data
from redisflow.backend.replies import Reply
from redisflow.codec import encode_payload, make_packer
from redisflow.define import Resource, Skip, Step, Workflow
from redisflow.model.fingerprints import fingerprint_error
from redisflow.model.histogram import bucket_of
from redisflow.worker.capture import current_step
from redisflow.worker.checkpoints import Checkpoints, StreamStore
from redisflow.worker.context import Context, Job
from redisflow.worker.failures import StepTimeout, describe, is_fatal, retry_after
from redisflow.worker.isolate import Encoded, Isolation
from redisflow.worker.logs import StepLog
from redisflow.worker.threads import Threads
from redisflow.worker.traces import StepTraces

log = logging.getLogger("redisflow.worker")
Report = Callable[..., None]


class Resources:
    """Open resources of a worker process: each once, at first use; closed in reverse order."""

    def __init__(self, given: Mapping[Resource[Any], Any] | None = None) -> None:
        self.values: dict[Resource[Any], Any] = dict(given or {})
        self._stack = AsyncExitStack()
        self._lock = asyncio.Lock()

    async def ensure(self, wanted: tuple[Resource[Any], ...]) -> None:
        """Open what is not open yet."""
        async with self._lock:
            for resource in wanted:
                if resource not in self.values:
                    self.values[resource] = await self._stack.enter_async_context(resource.open())

    async def close(self) -> None:
        """Close all that was opened here."""
        await self._stack.aclose()


class Executors:
    """Runs jobs of the given workflows.

    Args:
        backend: opened.
        workflows: by slug.
        worker_id: shown in the context.
        report: `Dispatcher.report`.
        resources: values to use in place of opening them, for tests.
        traces: where attempts have spans.
    """

    def __init__(
        self, backend: RedisBackend, workflows: Mapping[str, Workflow[Any, Any]], *, worker_id: str, report: Report,
        resources: Mapping[Resource[Any], Any] | None = None, traces: StepTraces | None = None,
    ) -> None:  # fmt: skip
        self._backend = backend
        self._workflows = workflows
        self._worker_id = worker_id
        self._traces = traces
        self._report = report if traces is None else traces.watch(report)
        self._threads = Threads()
        self._resources = Resources(resources)
        self._found: dict[tuple[int, int, bytes], tuple[Step, str] | None] = {}
        self._patience = f"unknown {backend.settings.step_removed_after}"
        self._limit = backend.settings.max_payload_bytes
        self._pack = make_packer()
        self._loop = asyncio.get_running_loop()
        self._eager = self._loop.get_task_factory() is None  # else tasks are made the way that somebody wants
        self._isolation = Isolation(backend, self._threads, worker_id=worker_id)
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close resources and let idle threads end."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._traces is not None:
            await self._traces.close()
        await self._isolation.close()
        self._threads.close()
        await self._resources.close()

    def start(self, job: Job) -> None:
        """Begin to run a claimed job."""
        job.started = time.perf_counter()
        traces = self._traces
        body = self._run(job) if traces is None else traces.run(job, self._run)
        task: asyncio.Task[None]
        # at once, up to its first await: a step that awaits nothing costs no round of the loop, and a third less of the worker
        if sys.version_info >= (3, 12) and self._eager:
            task = asyncio.Task(body, loop=self._loop, eager_start=True)
        else:
            task = self._loop.create_task(body)
        if not task.done():
            job.task = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job) -> None:
        try:
            found = self._found.get((job.partition, job.number, job.step))
            if found is None:
                found = await self._find(job)
                if found is None:
                    self._report(job, "l", b"", b"", self._patience)
                    return
            step, slug = found
            job.context = context = Context(job, slug, self._worker_id, self)
            current_step.set(context)
            value = await self._body(job, step, context)
            if context.log is not None:
                await context.log.close()
            self._complete(job, step, value)
        except asyncio.CancelledError as error:
            await _close_log(job)
            if not job.stopped:  # the body's own doing: without an outcome the step would run for ever
                self._fail(job, error)
        except BaseException as error:  # noqa: BLE001 - nothing that a body raises may escape
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                log.warning("a step raised %s: taken as its failure", type(error).__name__)
            await _close_log(job)
            self._fail(job, error)

    def checkpoints(self, job: Job) -> Checkpoints:
        """Those of an execution."""
        store = StreamStore(self._backend, job.run.decode(), job.step.decode(), job.attempt, job.lease)
        return Checkpoints(store, self._loop, self._limit)

    def log(self, job: Job) -> StepLog:
        """That of an execution."""

        async def send(notes: list[Note]) -> Reply:
            return await Recording.record_notes(self._backend, job.run.decode(), job.step.decode(), job.lease, notes)

        return StepLog(job, self._loop, send)

    async def _body(self, job: Job, step: Step, context: Context) -> Any:
        stored, outputs = job.stored, {}
        if len(stored) > 1 or stored[0].startswith(b"@"):  # most steps have neither dependencies nor a long input
            if b"@" in [text[:1] for text in stored[::2]]:
                stored = await self._fetch(job)
            outputs = {stored[i].decode(): stored[i + 1][1:] for i in range(1, len(stored), 2)}
        text = stored[0]
        if step.isolate:
            child = self._isolation.run(job, step, self._workflows[context.workflow], text, outputs)
            return await (child if step.timeout_us is None else _within(step, child))
        if step.resources:
            await self._resources.ensure(step.resources)
        kwargs = step.bind(text[1:] if text else None, outputs, context, self._resources.values)
        if not step.is_async:
            return await self._in_thread(job, step, kwargs)
        if step.timeout_us is None:
            return await step.fn(**kwargs)
        return await _within(step, step.fn(**kwargs))

    async def _in_thread(self, job: Job, step: Step, kwargs: dict[str, Any]) -> Any:
        done: asyncio.Future[Any] = self._loop.create_future()
        context = copy_context()

        def finish(value: Any, error: BaseException | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(value)
                else:
                    done.set_exception(error if not isinstance(error, StopIteration) else RuntimeError("StopIteration"))

        def call() -> None:
            value, raised = None, None
            try:
                value = context.run(step.fn, **kwargs)
            except BaseException as error:  # noqa: BLE001 - it is raised on the loop
                raised = error
            try:
                self._loop.call_soon_threadsafe(finish, value, raised)
            except RuntimeError:
                log.warning("step %s ended after its worker had", job.step.decode())

        self._threads.submit(call)
        return await done

    async def _fetch(self, job: Job) -> list[bytes]:
        """Payloads that were too large for the claim's answer."""
        claim = await self._backend.resolve_claim(
            job.partition, job.lease, [job.run, job.step, job.number, job.attempt, *job.stored]
        )
        stored = [b"" if claim.input is None else b"=" + claim.input.encode()]
        for name, text in claim.outputs.items():
            stored += (name.encode(), b"=" + text.encode())
        return stored

    async def _find(self, job: Job) -> tuple[Step, str] | None:
        """The code of a job's step; None where this worker lacks it, or it needs what the run's plan does not supply."""
        info = await self._backend.plan_info(job.partition, job.number)
        name = job.step.decode()
        workflow = self._workflows.get(info.slug)
        step = workflow.steps.get(name) if workflow else None
        if step is None or workflow is None:
            log.warning("no code for step %s of workflow %s: handed back", name, info.slug)
            return None
        supplied = info.steps.get(name, ())
        missing = [param for param in step.required_steps if param not in supplied]
        if missing:
            log.warning(
                "step %s of %s needs %s, which the run's version does not give: handed back", name, info.slug, missing
            )
            return None
        found = (step, info.slug)
        self._found[(job.partition, job.number, job.step)] = found
        return found

    def _complete(self, job: Job, step: Step, value: Any) -> None:
        if type(value) is Encoded:
            text: str = value
        else:
            text = encode_payload(value, what=f"the output of step {step.id!r}", limit=self._limit)
        duration = _micros(job)
        fields: dict[str, Any] = {"a": job.attempt, "d": duration, "x": step.export}
        if job.usage is not None:
            fields["ru"] = job.usage
        self._report(job, "c", self._pack(fields), text, str(bucket_of(duration)))

    def _fail(self, job: Job, error: BaseException) -> None:
        if isinstance(error, Skip):
            try:
                data = skip_data(job.attempt, error.reason, error.metadata, _micros(job))
            except (TypeError, ValueError, OverflowError) as unfit:
                error = unfit
            else:
                self._report(job, "k", data)
                return
        described = describe(error)
        hashes = fingerprint_error(described)
        log.info("step failed: %s: %s", described.name, described.message[:200])
        data, packed_error, how = failure_parts(
            job.attempt, described.model_dump(exclude_none=True), list(hashes.model_dump().values()), _micros(job),
            reason="timeout" if isinstance(error, StepTimeout) else "execution-error", fatal=is_fatal(error),
            retry_after_us=retry_after(error), resource_usage=job.usage,
        )  # fmt: skip
        self._report(job, "f", data, packed_error, how)


async def _within(step: Step, body: Awaitable[Any]) -> Any:
    assert step.timeout_us is not None
    scope = asyncio.timeout(step.timeout_us / 1e6)
    try:
        async with scope:
            return await body
    except TimeoutError as error:
        if scope.expired():
            raise StepTimeout(f"the step did not end within its timeout of {step.timeout_us / 1e6:g} s") from error
        raise


async def _close_log(job: Job) -> None:
    """Send the last lines of a step, where it wrote any."""
    if job.context is not None and job.context.log is not None:
        await job.context.log.close()


def _micros(job: Job) -> int:
    return int((time.perf_counter() - job.started) * 1e6)
