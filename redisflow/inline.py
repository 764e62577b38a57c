"""Runs a workflow in this process, without a server: for unit tests and notebooks.

The rules are those of the server: order, skips, retries, what fails a run. Payloads go through the same JSON
on their way from step to step, so that what would break there breaks here. What is left out is time and
trouble: retries follow at once unless asked otherwise, nothing crashes, and nothing is recorded.

A `_Run` is the state of one run; each step that may run is an asyncio task, and the run advances as they end,
one by one.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from redisflow.codec import encode_payload
from redisflow.define import Fatal, Resource, RetryAfter, Skip, Step, StepKey, Workflow, set_inline_runner
from redisflow.define.payloads import value_reader
from redisflow.model.errors import RunFailed
from redisflow.settings import Settings, format_duration

RUN_ID: Final = "inline"
_SKIPPED: Final = None


@dataclass(slots=True)
class InlineContext:
    """The context of a step that runs here; see `StepContext`."""

    workflow: str
    step_id: str
    attempt: int
    logger: logging.Logger
    run_id: str = RUN_ID
    worker_id: str = "inline"
    _cancelled: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt."""
        return f"{self.run_id}:{self.step_id}"

    async def checkpoint(self, name: str, fn: Callable[[], Any]) -> Any:
        """Run the part, and give its value as it comes back from JSON; nothing is kept, since nothing is recorded here."""
        value = fn()
        if inspect.isawaitable(value):
            value = await value
        return value_reader(fn)(encode_payload(value, what=f"checkpoint {name!r}"))

    def checkpoint_sync(self, name: str, fn: Callable[[], Any]) -> Any:
        """`checkpoint` for plain functions."""
        return value_reader(fn)(encode_payload(fn(), what=f"checkpoint {name!r}"))

    @property
    def cancelled(self) -> bool:
        """Whether the attempt ran over its time, or the run has ended."""
        return self._cancelled.is_set()


class _StepFailed(Exception):
    """A step has no attempt left; the cause is the error of the last one."""

    def __init__(self, step_id: str, cause: BaseException) -> None:
        self.step_id = step_id
        self.cause = cause
        super().__init__(step_id)


async def run_inline(
    workflow: Workflow[Any, Any],
    input: Any,
    *,
    stubs: Mapping[StepKey, Any],
    resources: Mapping[Resource[Any], Any],
    real_delays: bool,
) -> Any:
    """Run a workflow and return its output; see `Workflow.run_inline`."""
    plan = workflow.plan
    value = workflow.validate_input(input)
    limit = Settings().max_payload_bytes
    # a missing input stays missing, so that parameters keep their defaults as they do on the server
    text = None if input is None else encode_payload(value, what=f"input of workflow {plan.slug!r}", limit=limit)
    stubbed = {workflow.step_id(key): stub for key, stub in stubs.items()}
    async with AsyncExitStack() as stack:
        opened = dict(resources)
        for step_id, step in workflow.steps.items():
            for resource in step.resources if step_id not in stubbed else ():
                if resource not in opened:
                    opened[resource] = await stack.enter_async_context(resource.open())
        run = _Run(workflow, text, stubbed, opened, limit, real_delays)
        timeout_us = plan.timeout_us
        deadline = asyncio.timeout(None if timeout_us is None else timeout_us / 1e6)
        try:
            async with deadline:
                outputs = await run.finish()
        except TimeoutError as error:
            if not deadline.expired() or timeout_us is None:
                raise
            message = f"the run took longer than its timeout of {format_duration(timeout_us)}"
            raise RunFailed(RUN_ID, None, "TimeoutError", message) from error
    return workflow.output_of(outputs)


class _Run:
    """One run: which steps have ended and how, and the tasks of those that run."""

    def __init__(
        self,
        workflow: Workflow[Any, Any],
        input_json: str | None,
        stubs: Mapping[str, Any],
        resources: Mapping[Resource[Any], Any],
        limit: int,
        real_delays: bool,
    ) -> None:
        self.workflow = workflow
        self.plan = workflow.plan
        self.input_json = input_json
        self.stubs = stubs
        self.resources = resources
        self.limit = limit
        self.real_delays = real_delays
        self.outputs: dict[str, str | None] = {}
        self.unmet = {step.id: len(step.dependencies) for step in self.plan.steps}
        self.tasks: dict[asyncio.Task[tuple[str, str | None]], int] = {}
        self.started = 0
        self.contexts: dict[str, InlineContext] = {}
        self.failure: _StepFailed | None = None

    async def finish(self) -> dict[str, str | None]:
        """Run to the end.

        Returns:
            JSON text of the outputs by step id, None for skipped steps.

        Raises:
            RunFailed: a step failed.
        """
        try:
            for step_id in self.plan.roots:
                self._start(step_id)
            while self.tasks:
                done, _ = await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in sorted(done, key=self.tasks.__getitem__):  # in the order in which they started
                    del self.tasks[task]
                    self._settle(task)
                if self.failure is not None and self.plan.on_error == "stop":
                    break
        finally:
            await self._stop()
        if self.failure is not None:
            raise _as_run_failed(self.failure) from self.failure.cause
        return self.outputs

    def _settle(self, task: asyncio.Task[tuple[str, str | None]]) -> None:
        try:
            step_id, output = task.result()
        except _StepFailed as failed:
            self.failure = self.failure or failed
        else:
            self._advance(step_id, output)

    def _advance(self, step_id: str, output: str | None) -> None:
        """Record an end, and those that it brings about: skips cascade, what became ready starts."""
        self.outputs[step_id] = output
        ended = [step_id]
        for current in ended:
            skipped = self.outputs[current] is _SKIPPED
            for dependent, kind in self.plan.dependents[current]:
                self.unmet[dependent] -= 1
                if dependent in self.outputs:
                    continue
                if skipped and kind == "required":
                    self.outputs[dependent] = _SKIPPED
                    ended.append(dependent)
                elif self.unmet[dependent] == 0:
                    self._start(dependent)

    def _start(self, step_id: str) -> None:
        step = self.workflow.steps[step_id]
        task = asyncio.create_task(self._execute(step), name=f"{self.plan.slug}:{step_id}")
        self.tasks[task] = self.started = self.started + 1

    async def _stop(self) -> None:
        for context in self.contexts.values():
            context._cancelled.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _execute(self, step: Step) -> tuple[str, str | None]:
        """All attempts of a step: its id and output, None where it was skipped; raises `_StepFailed`."""
        failures = 0
        while True:
            try:
                return step.id, await self._attempt(step, failures + 1)
            except Skip:
                return step.id, _SKIPPED
            except asyncio.CancelledError as error:
                current = asyncio.current_task()
                if current is not None and current.cancelling():
                    raise
                cause: BaseException = error  # the body cancelled itself, which is a failure like any other
            except Exception as error:  # noqa: BLE001 -- whatever the body raises is the outcome of the attempt
                cause = error
            failures += 1
            if isinstance(cause, Fatal) or failures >= step.retry.max_attempts:
                raise _StepFailed(step.id, cause)
            if self.real_delays:
                planned = step.retry.delay_us(failures, random.random())
                await asyncio.sleep((cause.delay_us if isinstance(cause, RetryAfter) else planned) / 1e6)

    async def _attempt(self, step: Step, attempt: int) -> str:
        """One attempt: the output as JSON text."""
        what = f"output of {step.where}"
        if step.id in self.stubs:
            stub = self.stubs[step.id]
            if isinstance(stub, BaseException):
                raise stub
            return encode_payload(stub, what=what, limit=self.limit)
        logger = logging.getLogger(f"redisflow.step.{self.plan.slug}.{step.id}")
        context = self.contexts[step.id] = InlineContext(self.plan.slug, step.id, attempt, logger)
        arguments = step.bind(self.input_json, self.outputs, context, self.resources)
        value = await self._call(step, arguments, context)
        return encode_payload(value, what=what, limit=self.limit)

    async def _call(self, step: Step, arguments: dict[str, Any], context: InlineContext) -> Any:
        if not step.is_async:
            return await asyncio.to_thread(step.fn, **arguments)
        if step.timeout_us is None:
            return await step.fn(**arguments)
        deadline = asyncio.timeout(step.timeout_us / 1e6)
        try:
            async with deadline:
                return await step.fn(**arguments)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            context._cancelled.set()
            limit = format_duration(step.timeout_us)
            raise TimeoutError(f"the attempt took longer than its timeout of {limit}") from error


def _as_run_failed(failed: _StepFailed) -> RunFailed:
    cause = failed.cause
    stack = "".join(traceback.format_exception(cause))
    return RunFailed(RUN_ID, failed.step_id, type(cause).__name__, str(cause), stack)


set_inline_runner(run_inline)
