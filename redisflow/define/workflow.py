"""`Workflow`: steps are declared on it, and it compiles them to a plan.

Everything that can be wrong with a step is told when the step is declared, with the step's name and the fix;
what concerns the whole is told when the workflow is sealed, at the first look at its plan. From then on it
does not change, as a version is a promise to the runs that were submitted with it.

Running is the business of others: a worker asks `steps` and `bind`, a client `validate_input` and
`output_of`. The in-process runner sits above this package and registers itself with `set_inline_runner`.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, TypeVar, overload

from typing_extensions import TypeForm

from redisflow.define.compile import compile_plan
from redisflow.define.declaration import Declaration, StepKey, StepOptions, check_name, micros
from redisflow.define.hints import NO_HINT
from redisflow.define.output import compose
from redisflow.define.payloads import problems, read_plain
from redisflow.define.resources import Resource
from redisflow.define.retries import RetryOption
from redisflow.define.runner import inline_runner
from redisflow.define.steps import Step
from redisflow.model.errors import DefinitionError, InvalidInput
from redisflow.model.workflow import SLUG, OnError, Plan
from redisflow.settings import Duration

In = TypeVar("In")
Out = TypeVar("Out")
F = TypeVar("F", bound=Callable[..., Any])


class Workflow(Generic[In, Out]):
    """A DAG of steps with a typed input and output.

    Args:
        slug: its id in a namespace: letters, digits, `_`, `.`, `-`, up to 64.
        input: type of the input: a pydantic model, dataclass, TypedDict or any type that pydantic takes.
            None: not checked.
        output: type of the output, likewise.
        name: for people; the slug by default.
        on_error: `"stop"` ends a run at its first failed step, `"finish"` lets what does not depend on it go
            on.
        timeout: how long a run may take.
        queue: where its steps stand when they may run; the slug by default.

    Raises:
        DefinitionError: an argument outside what is allowed.
    """

    @overload
    def __init__(
        self: Workflow[Any, Any],
        slug: str,
        *,
        name: str | None = None,
        on_error: OnError = "stop",
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[In, Any],
        slug: str,
        *,
        input: TypeForm[In],
        name: str | None = None,
        on_error: OnError = "stop",
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: Workflow[Any, Out],
        slug: str,
        *,
        output: TypeForm[Out],
        name: str | None = None,
        on_error: OnError = "stop",
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        slug: str,
        *,
        input: TypeForm[In],
        output: TypeForm[Out],
        name: str | None = None,
        on_error: OnError = "stop",
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> None: ...
    def __init__(
        self,
        slug: str,
        *,
        input: Any = None,
        output: Any = None,
        name: str | None = None,
        on_error: OnError = "stop",
        timeout: Duration | None = None,
        queue: str | None = None,
    ) -> None:
        types = [NO_HINT if declared is None else declared for declared in (input, output)]
        names = sys._getframe(1).f_locals
        self._set_up(slug, types[0], types[1], name, on_error, timeout, queue, names)

    def _set_up(
        self,
        slug: str,
        input: Any,
        output: Any,
        name: str | None,
        on_error: OnError,
        timeout: Duration | None,
        queue: str | None,
        names: Mapping[str, Any],
    ) -> None:
        """What `__init__` does, once the local names of its caller are known."""
        where = f"workflow {slug!r}"
        self.slug = slug
        self.name = name or slug
        self.on_error: OnError = on_error
        self.queue = slug if queue is None else queue
        for what, value in (("slug", slug), ("queue", self.queue)):
            check_name(value, SLUG, where, what)
        if on_error not in ("stop", "finish"):
            raise DefinitionError(f"{where}: on_error={on_error!r} is unknown: write 'stop' or 'finish'")
        self.timeout_us = micros(timeout, where)
        self.input_type = input
        self.output_type = output
        self._declaration = Declaration(slug, input, output, names)
        self._plan: Plan | None = None

    def __repr__(self) -> str:
        return f"<Workflow {self.slug}: {', '.join(self._declaration.steps) or 'no steps'}>"

    @overload
    def step(self, fn: F, /) -> F: ...
    @overload
    def step(
        self,
        /,
        *,
        name: str | None = None,
        retry: RetryOption = None,
        timeout: Duration | None = None,
        export: bool = False,
        after: Sequence[StepKey] = (),
        queue: str | None = None,
        isolate: bool = False,
    ) -> Callable[[F], F]: ...
    def step(
        self,
        fn: F | None = None,
        /,
        *,
        name: str | None = None,
        retry: RetryOption = None,
        timeout: Duration | None = None,
        export: bool = False,
        after: Sequence[StepKey] = (),
        queue: str | None = None,
        isolate: bool = False,
    ) -> Any:
        """Declare a step: decorate its function, with or without arguments. The function itself comes back.

        Args:
            fn: the function.
            name: id of the step; the function's name by default.
            retry: a `Retry`, several that are used up one after the other, or a number of attempts; one
                attempt by default.
            timeout: how long one attempt may take; for `async def` only, since a thread can't be killed.
            export: whether the output is part of the workflow's.
            after: steps, by function or id, that must have ended before; their output is not taken.
            queue: where it stands when it may run; that of the workflow by default.
            isolate: run it in a process of its own.

        Raises:
            DefinitionError: something is wrong with the step; the message names the step and the fix.
        """
        options = StepOptions(name, retry, timeout, export, after, queue, isolate)
        names = dict(sys._getframe(1).f_locals)

        def declare(fn: Callable[..., Any]) -> Any:
            self._declaration.declare(fn, options, names)
            return fn

        return declare if fn is None else declare(fn)

    @property
    def plan(self) -> Plan:
        """The compiled plan; the first look seals the workflow.

        Raises:
            DefinitionError: the workflow as a whole is not right.
        """
        if self._plan is None:
            self._plan = compile_plan(self, self._declaration.input, self._declaration.output)
            self._declaration.sealed = True
        return self._plan

    @property
    def steps(self) -> Mapping[str, Step]:
        """The steps by id, in declaration order."""
        return MappingProxyType(self._declaration.steps)

    @property
    def location(self) -> str | None:
        """Source file of the first step, absolute; None where there is none, as for code typed at a prompt."""
        for step in self._declaration.steps.values():
            inner = inspect.unwrap(step.fn)
            try:
                path = inspect.getsourcefile(getattr(inner, "func", inner))  # functools.partial
            except TypeError:  # an object that can be called
                return None
            return os.path.abspath(path) if path and os.path.exists(path) else None
        return None

    @property
    def resources(self) -> tuple[Resource[Any], ...]:
        """The resources of all steps, each once."""
        return tuple(dict.fromkeys(r for step in self._declaration.steps.values() for r in step.resources))

    def step_id(self, key: StepKey) -> str:
        """The id of a step, given by its function or id.

        Raises:
            DefinitionError: there is no such step.
        """
        return self._declaration.find(key, self._declaration.where)

    def validate_input(self, value: In | None = None) -> Any:
        """Check an input before it is submitted.

        Args:
            value: the input; None where there is none.

        Returns:
            The input with only JSON's types in it where that is possible, ready to be encoded.

        Raises:
            InvalidInput: it does not fit, or is missing; with field paths.
        """
        if value is None and not self._checks_none():
            return None
        declared = self._declaration.input
        return value if declared is None else declared.check(value, f"input of {self._declaration.where}")

    def check_input_json(self, text: str | bytes | None) -> None:
        """Check an input that is JSON text already; None where there is none.

        Raises:
            InvalidInput: it does not fit, is missing or is no JSON; with field paths.
        """
        if text is None and not self._checks_none():
            return
        try:
            read = declared.read if (declared := self._declaration.input) else read_plain
            read("null" if text is None else text)
        except ValueError as error:
            raise InvalidInput(f"input of {self._declaration.where}", problems(error)) from None

    def _checks_none(self) -> bool:
        """Whether a missing input is to be checked like None; raises where it is a mistake."""
        if self.plan.input_required:
            what = f"input of {self._declaration.where}"
            raise InvalidInput(what, [("$", "missing, the workflow needs an input")])
        return self._declaration.input is not None and self._declaration.input.nullable

    def output_of(self, outputs: Mapping[str, str | bytes | None]) -> Out:
        """Compose the workflow's output.

        Args:
            outputs: JSON text of the outputs by step id; a skipped step is missing or None.

        Returns:
            The value itself where one step is exported (None if it was skipped), None where none is, else an
            object with the outputs of the exported steps that were not skipped. Of the declared type where
            one is declared.

        Raises:
            InvalidInput: the output does not fit the declared type.
        """
        text = compose(self._declaration.steps.values(), outputs)
        if text is None:
            return None  # type: ignore[return-value]  # the declared type cannot speak for what is not there
        try:
            value: Out = (output.read if (output := self._declaration.output) else read_plain)(text)
        except ValueError as error:
            raise InvalidInput(f"output of {self._declaration.where}", problems(error)) from None
        return value

    async def run_inline(
        self,
        input: In | None = None,
        *,
        stubs: Mapping[StepKey, Any] | None = None,
        resources: Mapping[Resource[Any], Any] | None = None,
        real_delays: bool = False,
    ) -> Out:
        """Run the workflow here and now, without a server: for tests and notebooks.

        Args:
            input: the input.
            stubs: outputs to take instead of running a step, by function or id; an exception is raised in its
                place.
            resources: values to use instead of opening a resource.
            real_delays: wait between attempts as a worker would; by default they follow at once.

        Returns:
            The output, as `run.result()` would give it.

        Raises:
            RunFailed: a step failed; its error is the cause.
            InvalidInput: the input does not fit.
            DefinitionError: the workflow is not right, or a stub names no step.
        """
        output: Out = await inline_runner()(
            self, input, stubs=stubs or {}, resources=resources or {}, real_delays=real_delays
        )
        return output


def make_workflow(
    slug: str,
    *,
    input: Any,
    output: Any,
    name: str | None,
    names: Mapping[str, Any],
    input_name: str | None,
    fields: frozenset[str],
) -> Workflow[Any, Any]:
    """A workflow whose types and local names were found out by other code.

    Args:
        slug: its id.
        input: type of the input, `NO_HINT` for none.
        output: type of the output, likewise.
        name: for people.
        names: local names of the place of declaration.
        input_name: the parameter that takes the input.
        fields: parameters that are fields of the input.
    """
    workflow: Workflow[Any, Any] = Workflow.__new__(Workflow)
    workflow._set_up(slug, input, output, name, "stop", None, None, names)
    workflow._declaration.input_name = input_name
    workflow._declaration.fields = fields
    return workflow
