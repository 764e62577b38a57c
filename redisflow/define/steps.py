"""A step as workers and the in-process runner use it: the function, its budgets, and how its arguments are made.

`bind` is on the way of every execution, so all that can be decided beforehand is: one short list a source of parameters, each
entry with its validator. A step without parameters costs next to nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redisflow.define.binding import Binding
from redisflow.define.context import StepContext
from redisflow.define.hints import bare, is_open, show
from redisflow.define.payloads import UNBUILDABLE, Payload, Reader, problems, read_plain
from redisflow.define.resources import Resource
from redisflow.model.errors import DefinitionError, InvalidInput
from redisflow.model.retry import RetryPolicy
from redisflow.model.workflow import Edge

Text = str | bytes


@dataclass(frozen=True, slots=True)
class Options:
    """What was declared of a step besides its parameters; durations in µs, `after` as step ids."""

    retry: RetryPolicy = RetryPolicy()
    timeout_us: int | None = None
    export: bool = False
    queue: str | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a workflow, ready to run.

    Attributes:
        id: its id in the workflow.
        fn: the function.
        is_async: whether `fn` is an `async def`; otherwise it belongs into a thread.
        retry: its budgets.
        timeout_us: how long one attempt may take, in µs; None for no limit.
        export: whether its output is part of the workflow's.
        queue: its own queue; None for that of the workflow.
        bindings: the source of each parameter.
        edges: what it waits for.
        returns: its evaluated return annotation.
        code: hash of its source.
        resources: what `bind` needs open.
        required_steps: steps whose output it cannot do without; a run whose plan lacks one has other code.
    """

    id: str
    fn: Callable[..., Any]
    is_async: bool
    retry: RetryPolicy
    timeout_us: int | None
    export: bool
    queue: str | None
    bindings: tuple[Binding, ...]
    edges: tuple[Edge, ...]
    returns: Any
    code: str
    resources: tuple[Resource[Any], ...]
    required_steps: tuple[str, ...]
    _what: str = field(repr=False)
    _input: tuple[str, Reader, bool, bool] | None = field(repr=False)
    _fields: tuple[Reader, bool] | None = field(repr=False)
    _reads: tuple[tuple[str, str, Reader, bool], ...] = field(repr=False)
    _contexts: tuple[str, ...] = field(repr=False)
    _uses: tuple[tuple[str, Resource[Any]], ...] = field(repr=False)

    def bind(
        self,
        input_json: Text | None,
        outputs: Mapping[str, Text | None],
        ctx: StepContext | None,
        resources: Mapping[Resource[Any], Any],
    ) -> dict[str, Any]:
        """Make the keyword arguments for `fn`.

        Args:
            input_json: the run's input as JSON text; None where it has none.
            outputs: JSON text of the outputs by step id; a skipped step is missing or None.
            ctx: what the context parameter receives.
            resources: the open value of each of `self.resources`.

        Raises:
            InvalidInput: the input or an output does not fit its parameter, or is missing; with field paths.
        """
        bound: dict[str, Any] = {}
        if self._input is not None:
            name, read, has_default, nullable = self._input
            if input_json is not None:
                try:
                    bound[name] = read(input_json)
                except ValueError as error:
                    raise self._bad_input(error) from None
            elif nullable and not has_default:
                bound[name] = None
            elif not has_default:
                raise InvalidInput(f"input of {self._what}", [("$", f"missing, parameter {name!r} needs it")])
        elif self._fields is not None:
            self._spread(bound, input_json)
        for name, step, read, required in self._reads:
            text = outputs.get(step)
            if text is not None:
                try:
                    bound[name] = read(text)
                except ValueError as error:
                    raise InvalidInput(f"output of step {step!r} for {self._what}", problems(error)) from None
            elif required:
                raise InvalidInput(
                    f"output of step {step!r} for {self._what}", [("$", f"missing, parameter {name!r} needs it")]
                )
        for name in self._contexts:
            bound[name] = ctx
        for name, resource in self._uses:
            bound[name] = resources[resource]
        return bound

    def _spread(self, bound: dict[str, Any], input_json: Text | None) -> None:
        assert self._fields is not None
        read, required = self._fields
        if input_json is None and not required:
            return
        try:
            bound.update(read("{}" if input_json is None else input_json))
        except ValueError as error:
            raise self._bad_input(error) from None

    def _bad_input(self, error: ValueError) -> InvalidInput:
        return InvalidInput(f"input of {self._what}", problems(error))


def make_step(
    step_id: str,
    fn: Callable[..., Any],
    *,
    where: str,
    options: Options,
    bindings: tuple[Binding, ...],
    returns: Any,
    code: str,
    payload_of: Callable[[Any], Payload],
    input_payload: Payload | None,
) -> Step:
    """Prepare a step.

    Args:
        step_id: its id.
        fn: the function.
        where: names the step in errors.
        options: what was declared of it.
        bindings: the source of each parameter.
        returns: its evaluated return annotation.
        code: hash of its source.
        payload_of: makes the payload of a type; may keep it for the next step.
        input_payload: the declared input; None where none is.

    Raises:
        DefinitionError: a parameter's type is none that can be read from JSON.
    """

    def payload(binding: Binding) -> Payload | None:
        if is_open(bare(binding.hint)):
            return input_payload if binding.source == "input" else None
        try:
            return payload_of(binding.hint)
        except UNBUILDABLE as error:
            raise DefinitionError(
                f"{where}: parameter {binding.parameter!r} of type {show(bare(binding.hint))} cannot be read from JSON "
                f"({str(error).splitlines()[0]}). Use a pydantic model, dataclass, TypedDict or builtin type; "
                "what cannot be JSON is a resource: Annotated[..., Use(resource)]"
            ) from error

    by_source: dict[str, list[Binding]] = {}
    for binding in bindings:
        by_source.setdefault(binding.source, []).append(binding)
    fields = by_source.get("field", ())
    uses = tuple((b.parameter, b.resource) for b in by_source.get("resource", ()) if b.resource is not None)
    edges = _edges(by_source.get("step", []), options.after)
    return Step(
        id=step_id,
        fn=fn,
        is_async=is_async(fn),
        retry=options.retry,
        timeout_us=options.timeout_us,
        export=options.export,
        queue=options.queue,
        bindings=bindings,
        edges=edges,
        returns=returns,
        code=code,
        resources=tuple(dict.fromkeys(resource for _, resource in uses)),
        required_steps=tuple(edge.step for edge in edges if edge.kind == "required"),
        _what=where,
        _input=_input_entry(by_source.get("input", []), payload),
        _fields=(input_payload.read, any(b.required for b in fields)) if fields and input_payload else None,
        _reads=tuple(
            (b.parameter, b.step, found.read if (found := payload(b)) else read_plain, b.required)
            for b in by_source.get("step", ())
        ),
        _contexts=tuple(b.parameter for b in by_source.get("context", ())),
        _uses=uses,
    )


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004


def _input_entry(
    inputs: list[Binding], payload: Callable[[Binding], Payload | None]
) -> tuple[str, Reader, bool, bool] | None:
    """Parameter, reader, whether it has a default, whether it takes None."""
    if not inputs:
        return None
    found = payload(inputs[0])
    return inputs[0].parameter, found.read if found else read_plain, not inputs[0].required, bool(found and found.nullable)


def _edges(reads: list[Binding], after: tuple[str, ...]) -> tuple[Edge, ...]:
    """An edge a step: a parameter without a default is the strongest tie, then one with a default, then order."""
    kinds: dict[str, Edge] = {}
    for binding in reads:
        if binding.required or binding.step not in kinds:
            kinds[binding.step] = Edge(step=binding.step, kind="required" if binding.required else "optional")
    for step in after:
        kinds.setdefault(step, Edge(step=step, kind="after"))
    return tuple(kinds.values())
