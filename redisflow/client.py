"""The client: submit runs, wait for results, watch, cancel.

    async with Client() as rf:
        run = await rf.submit(checkout, Order(id="o-1"), key="o-1")
        receipt = await run.result(timeout=5)

A library call never starts a server: without a URL it attaches to the embedded server that runs in this folder, or says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar, overload

from redisflow import tracing
from redisflow.backend.coalescer import Coalescer
from redisflow.backend.drafts import json_text
from redisflow.backend.inputs import check_input
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.runs import Prepared
from redisflow.backend.redis.traces import export_stopped
from redisflow.backend.types import CancelResult, SubmitResult
from redisflow.backend.types import Submission as BackendSubmission
from redisflow.codec import decode_payload, encode_payload
from redisflow.define import Task, Workflow
from redisflow.embedded import EmbeddedServer, attach
from redisflow.model.errors import (
    InvalidArgument,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunNotFound,
    ServerUnavailable,
)
from redisflow.model.events import BaseEvent
from redisflow.model.states import RunState, StepState
from redisflow.model.workflow import Plan
from redisflow.settings import Duration, Settings, parse_duration

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class Submission(Generic[In]):
    """One item of `submit_many` with options of its own; see `Client.submit` for their meaning."""

    input: In
    key: str | None = None
    priority: int = 0
    tags: Sequence[str] = ()
    delay: Duration | None = None
    at: datetime | None = None
    timeout: Duration | None = None
    run_id: str | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Run(Generic[Out]):
    """A submitted run.

    Attributes:
        id: its id.
        is_new: False where an earlier submission had the same key.
    """

    id: str
    is_new: bool = True
    _client: Client | None = field(default=None, repr=False, compare=False)
    _workflow: Workflow[Any, Out] | None = field(default=None, repr=False, compare=False)

    @property
    def _rf(self) -> Client:
        if self._client is None:
            raise InvalidArgument("run", self.id, "a run made by a Client")
        return self._client

    async def result(self, timeout: Duration | None = None) -> Out:
        """Wait for the end and give the output.

        Args:
            timeout: how long to wait; None waits for ever. The run itself goes on.

        Raises:
            RunFailed, RunCancelled: how it ended otherwise.
            ResultTimeout: it has not ended yet.
            RunNotFound: there is no such run.
        """
        output: Out = await self._rf.result(self.id, timeout=timeout, workflow=self._workflow)
        return output

    async def status(self) -> RunState:
        """State of the run now."""
        return await self._rf.status(self.id)

    def events(self) -> AsyncIterator[BaseEvent]:
        """Events from the first, live, until the run ends."""
        return self._rf.events(self.id)

    async def cancel(self, reason: str | None = None) -> CancelResult:
        """Cancel the run."""
        return await self._rf.cancel(self.id, reason)


class Client:
    """Talks to one namespace.

    Args:
        url: server; default: REDISFLOW_URL, else the embedded server that runs in this folder.
        namespace: default: REDISFLOW_NAMESPACE, else `redisflow`.
        settings: all settings at once, in place of the environment.
        durability: `acknowledged` (default): a submit returns when the primary has the runs; `replicated`: when at least one
            replica has them too, else it raises `NotReplicated`.
    """

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None,
        durability: Literal["acknowledged", "replicated"] | None = None,
    ) -> None:  # fmt: skip
        if durability not in (None, "acknowledged", "replicated"):
            raise InvalidArgument("durability", durability, "acknowledged or replicated")
        given = settings or Settings()
        update = {"url": url, "namespace": namespace, "durability": durability}
        self.settings = given.model_copy(update={name: value for name, value in update.items() if value is not None})
        self._embedded: EmbeddedServer | None = None
        self._backend: RedisBackend | None = None
        self._coalescer: Coalescer | None = None
        self._plans: dict[str, Plan] = {}
        self._registered: set[str] = set()

    @property
    def backend(self) -> RedisBackend:
        """The opened backend.

        Raises:
            ServerUnavailable: the client is not open.
        """
        if self._backend is None:
            raise ServerUnavailable("the client is not open: use `async with Client() as rf`, or await rf.open()")
        return self._backend

    async def open(self, *, deadline: Duration | None = None) -> Self:
        """Connect.

        Args:
            deadline: how long to ride out an unreachable server; default: REDISFLOW_RETRY_DEADLINE.
        """
        if self._backend is not None:
            return self
        settings = self.settings
        if settings.url is None:
            self._embedded = await asyncio.to_thread(attach, Path(settings.home))
            if self._embedded is None:
                raise ServerUnavailable(
                    "no server: set REDISFLOW_URL (or pass a URL), or start the embedded server of this folder "
                    "with `redisflow dev`"
                )
            settings = settings.model_copy(update={"url": self._embedded.url})
        backend = RedisBackend(settings)
        try:
            await backend.initialize(deadline_us=None if deadline is None else parse_duration(deadline))
        except BaseException:
            self._release()
            raise
        self._backend, self._coalescer = backend, Coalescer(backend)
        return self

    async def close(self) -> None:
        """Release every connection."""
        backend, self._backend, self._coalescer = self._backend, None, None
        if backend is not None:
            await backend.close()
        self._release()

    def _release(self) -> None:
        embedded, self._embedded = self._embedded, None
        if embedded is not None:
            embedded.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    async def submit(
        self, workflow: Workflow[In, Out] | Task[..., Any, Out], input: In = ..., *, key: str | None = ..., priority: int = ...,
        tags: Sequence[str] = ..., delay: Duration | None = ..., at: datetime | None = ..., timeout: Duration | None = ...,
        run_id: str | None = ..., metadata: Mapping[str, Any] | None = ...,
    ) -> Run[Out]: ...  # fmt: skip
    @overload
    async def submit(
        self, workflow: str, input: Any = ..., *, key: str | None = ..., priority: int = ..., tags: Sequence[str] = ...,
        delay: Duration | None = ..., at: datetime | None = ..., timeout: Duration | None = ..., run_id: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> Run[Any]: ...  # fmt: skip
    async def submit(self, workflow: Any, input: Any = None, **options: Any) -> Run[Any]:
        """Submit one run.

        Args:
            workflow: the workflow, or the slug of a registered one.
            input: its input; for a slug any JSON-able value, checked against the registered schema.
            key: idempotency key: a second submission with it gives the first run.
            priority: -100 to 100; higher is more urgent.
            tags: words to find the run by.
            delay: how long to wait before it may start.
            at: or the time at which it may start (aware, or local).
            timeout: time within which it must end, in place of the workflow's.
            run_id: an id of one's own.
            metadata: JSON-able values kept with the run.

        Raises:
            WorkflowNotFound, InvalidInput, InvalidArgument, PayloadTooLarge, RunExists: nothing was written.
            NotReplicated: as `submit_many`.
        """
        plan, flow = await self._register(workflow)
        item = Submission(input, **options) if options else input
        if tracing.enabled():
            with tracing.submitting(plan.slug) as span:
                result = await self._submit_one(plan, self._prepare(plan, flow, item, tracing.carrier()))
                tracing.submitted(span, [result.run_id])
        else:
            result = await self._submit_one(plan, self._prepare(plan, flow, item, {}))
        if self.settings.durability == "replicated":
            await self._confirm_replicated([result])
        return Run(result.run_id, result.is_new, self, flow)

    async def submit_many(
        self, workflow: Workflow[In, Out] | Task[..., Any, Out] | str, inputs: Iterable[In | Submission[In]]
    ) -> list[Run[Out]]:
        """Submit many runs of one workflow in one round trip for hundreds.

        Args:
            workflow: the workflow, or the slug of a registered one.
            inputs: inputs, or `Submission(input, key=…)` for options of their own.

        Raises:
            InvalidInput, InvalidArgument, PayloadTooLarge: one item is wrong; nothing was written.
            NotReplicated: with `durability="replicated"`, no replica confirmed the runs in time; it says whether they are stored.
        """
        plan, flow = await self._register(workflow)
        if tracing.enabled():
            with tracing.submitting(plan.slug) as span:
                context = tracing.carrier()
                results = await self._submit_all(plan, [self._prepare(plan, flow, item, context) for item in inputs])
                tracing.submitted(span, [result.run_id for result in results])
        else:
            results = await self._submit_all(plan, [self._prepare(plan, flow, item, {}) for item in inputs])
        if self.settings.durability == "replicated":
            await self._confirm_replicated(results)
        return [Run(result.run_id, result.is_new, self, flow) for result in results]

    async def _register(self, workflow: Any) -> tuple[Plan, Workflow[Any, Any] | None]:
        """The plan of a workflow, registered, and the workflow where it is not named by its slug."""
        if isinstance(workflow, str):
            return await self._plan_of(workflow), None
        flow: Workflow[Any, Any] = workflow.workflow if isinstance(workflow, Task) else workflow
        plan = flow.plan
        if plan.version not in self._registered:
            await self.backend.register_plan(plan, location=flow.location)
            self._registered.add(plan.version)
        return plan, flow

    def _submit_one(self, plan: Plan, prepared: Prepared) -> Coroutine[Any, Any, SubmitResult]:
        assert self._coalescer is not None  # opened with the backend, which has prepared it
        return self._coalescer.submit(plan, prepared)

    async def _submit_all(self, plan: Plan, prepared: list[Prepared]) -> list[SubmitResult]:
        if len(prepared) == 1:
            return [await self._submit_one(plan, prepared[0])]
        return await self.backend.submit_all(plan, prepared)

    async def _confirm_replicated(self, results: Sequence[SubmitResult]) -> None:
        run_ids = [result.run_id for result in results]
        await self.backend.confirm_replicated(run_ids, timeout_us=self.settings.replication_timeout)

    def _prepare(self, plan: Plan, flow: Workflow[Any, Any] | None, item: Any, context: dict[str, str]) -> Prepared:
        """What is stored of an input, or of a `Submission`."""
        if not isinstance(item, Submission):
            text = self._input_text(plan, flow, item)
            if not context:
                return self.backend.prepare_input(plan, text)
            return self.backend.prepare(plan, BackendSubmission(text, metadata=context))
        submission = BackendSubmission(
            input=self._input_text(plan, flow, item.input), run_id=item.run_id, available_at_us=_time(item.at),
            delay_us=None if item.delay is None else _duration("delay", item.delay), priority=item.priority,
            timeout_us=None if item.timeout is None else _duration("timeout", item.timeout),
            idempotency_key=item.key, tags=item.tags,
            metadata={**context, **(item.metadata or {})} if context else item.metadata,
        )  # fmt: skip
        return self.backend.prepare(plan, submission)

    def _input_text(self, plan: Plan, flow: Workflow[Any, Any] | None, given: Any) -> str | None:
        if flow is None:
            text = None if given is None else json_text("input", given)
            check_input(plan, text)
            return text
        value = flow.validate_input(given)
        if value is None and given is None and not plan.input_required:
            return None
        return encode_payload(value, what=f"the input of {plan.slug!r}", limit=self.settings.max_payload_bytes)

    async def _plan_of(self, slug: str) -> Plan:
        return await self.backend.registered_plan(slug)

    def run(self, run_id: str) -> Run[Any]:
        """A run by its id; nothing is looked up."""
        return Run(run_id, False, self, None)

    async def status(self, run_id: str) -> RunState:
        """State of a run.

        Raises:
            RunNotFound: there is none.
        """
        state = await self.backend.get_run(run_id)
        if state is None:
            raise RunNotFound(run_id)
        return state

    async def steps(self, run_id: str) -> dict[str, StepState]:
        """State of every step of a run that has begun, by step id."""
        return await self.backend.load_step_states(run_id)

    async def result(
        self, run_id: str, *, timeout: Duration | None = None, workflow: Workflow[Any, Any] | None = None
    ) -> Any:
        """Wait for a run's end and give its output; see `Run.result`.

        Without a workflow, the output is the value of the one exported step, None where none is exported, else an object,
        step name to output.
        """
        seconds = None if timeout is None else parse_duration(timeout) / 1e6
        status = await self.backend.wait_for(run_id, seconds)
        if status == "completed":
            outputs = await self.backend.exported_outputs(run_id)
            if workflow is not None:
                return workflow.output_of(outputs)
            values = {step: decode_payload(text) for step, text in outputs.items()}
            return next(iter(values.values())) if len(values) == 1 else (values or None)
        if not status:
            raise RunNotFound(run_id)
        if status in ("failed", "cancelled"):
            await self._raise_end(run_id)
        raise ResultTimeout(f"run {run_id} is still {status} after {seconds:g} s; it goes on")

    async def _raise_end(self, run_id: str) -> None:
        for event in reversed(await self.backend.load_wire_events(run_id)):
            if event["type"] == "WorkflowFailed":
                error = event["error"]
                raise RunFailed(
                    run_id, event.get("failedStep"), error.get("name"), error["message"], error.get("stack")
                )
            if event["type"] == "WorkflowCancelled":
                raise RunCancelled(run_id, event.get("reason"))

    def events(self, run_id: str) -> AsyncIterator[BaseEvent]:
        """Events of a run from the first, live, until it ends.

        Raises:
            RunNotFound: there is no such run, or it is deleted meanwhile.
        """
        return self.backend.follow(run_id)

    async def cancel(self, run_id: str, reason: str | None = None) -> CancelResult:
        """Cancel a run; one that has ended is left as it is, and the answer says so.

        Raises:
            RunNotFound: there is no such run.
        """
        result = await self.backend.cancel_run(run_id, reason)
        if result.cancelled and tracing.enabled():
            await export_stopped(self.backend, run_id)
        return result

    async def retry(self, run_id: str, reason: str | None = None) -> int:
        """Start a failed run anew where it stopped; gives the number of steps scheduled.

        Raises:
            RunNotFound: there is no such run.
            TransitionRefused: it is live, completed or cancelled.
        """
        return await self.backend.retry_run(run_id, reason)

    async def rerun(self, run_id: str, from_step: str, input: Any = None) -> Run[Any]:
        """A new run that repeats a step of an ended one and all that depends on it; the other outputs are kept.

        Args:
            run_id: the ended run.
            from_step: the step to repeat.
            input: a new input; None keeps the old one.

        Raises:
            RunNotFound, StepNotFound, TransitionRefused, InvalidInput: nothing was written.
        """
        return Run(await self.backend.rerun_from(run_id, from_step, input), True, self, None)

    async def runs(
        self, workflow: str | None = None, *, status: Iterable[str] = (), tags: Iterable[str] = (), limit: int | None = 50,
        offset: int = 0,
    ) -> tuple[list[RunState], int]:  # fmt: skip
        """Runs newest first, and their total before paging; statuses are ORed, tags ANDed."""
        return await self.backend.list_runs(workflow, status, tags, limit, offset)


def _duration(argument: str, value: Duration) -> int:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise InvalidArgument(argument, value, str(error)) from None


def _time(at: datetime | None) -> int | None:
    if at is None:
        return None
    return int(at.astimezone(UTC).timestamp() * 1_000_000)
