"""A step as workers and the in-process runner use it: the function, its budgets, and how its arguments are
made.

`bind` is on the way of every execution, so all that can be decided beforehand is: one short list a source of
parameters, each entry with its validator. A step without parameters costs next to nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from redisflow.define.binding import Binding
from redisflow.define.context import StepContext
from redisflow.define.hints import bare, is_open, show
from redisflow.define.payloads import UNBUILDABLE, Payload, Reader, first_line, problems, read_plain
from redisflow.define.resources import Resource
from redisflow.model.errors import DefinitionError, InvalidInput
from redisflow.model.retry import RetryPolicy
from redisflow.model.workflow import Edge

Text = str | bytes


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a workflow, ready to run.

    Attributes:
        id: its id in the workflow.
        fn: the function.
        where: names the step in errors, such as `step 'charge' of workflow 'checkout'`.
        bindings: the source of each parameter.
        payloads: the types of the parameters that are read from JSON, by name; None where any JSON will do.
        returns: its evaluated return annotation.
        code: hash of its source.
        retry: its budgets.
        timeout_us: how long one attempt may take, in µs; None for no limit.
        export: whether its output is part of the workflow's.
        queue: its own queue; None for that of the workflow.
        after: steps that it waits for without taking their output.
        isolate: whether it runs in a process of its own.
        is_async: whether `fn` is an `async def`; otherwise it belongs into a thread.
        edges: what it waits for.
        resources: what `bind` needs open.
        required_steps: steps whose output it cannot do without; a run whose plan lacks one has other code.
    """

    id: str
    fn: Callable[..., Any]
    where: str
    bindings: tuple[Binding, ...]
    payloads: Mapping[str, Payload | None]
    returns: Any
    code: str
    retry: RetryPolicy
    timeout_us: int | None
    export: bool
    queue: str | None
    after: tuple[str, ...]
    isolate: bool = False
    is_async: bool = field(init=False)
    edges: tuple[Edge, ...] = field(init=False)
    resources: tuple[Resource[Any], ...] = field(init=False)
    required_steps: tuple[str, ...] = field(init=False)
    _input: tuple[str, Reader, bool, bool] | None = field(init=False, repr=False)
    _fields: tuple[Reader, bool] | None = field(init=False, repr=False)
    _reads: tuple[tuple[str, str, Reader, bool], ...] = field(init=False, repr=False)
    _contexts: tuple[str, ...] = field(init=False, repr=False)
    _uses: tuple[tuple[str, Resource[Any]], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        reads = [b for b in self.bindings if b.source == "step"]
        edges = _edges(reads, self.after)
        uses = tuple((b.parameter, b.resource) for b in self.bindings if b.resource is not None)
        derived = {
            "is_async": is_async(self.fn),
            "edges": edges,
            "resources": tuple(dict.fromkeys(resource for _, resource in uses)),
            "required_steps": tuple(edge.step for edge in edges if edge.kind == "required"),
            "_input": self._input_entry(),
            "_fields": self._fields_entry(),
            "_reads": tuple((b.parameter, b.step, self._reader(b), b.required) for b in reads),
            "_contexts": tuple(b.parameter for b in self.bindings if b.source == "context"),
            "_uses": uses,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def _reader(self, binding: Binding) -> Reader:
        payload = self.payloads[binding.parameter]
        return payload.read if payload else read_plain

    def _input_entry(self) -> tuple[str, Reader, bool, bool] | None:
        """Parameter, reader, whether it has a default, whether it takes None."""
        for binding in self.bindings:
            if binding.source == "input":
                payload = self.payloads[binding.parameter]
                nullable = payload is not None and payload.nullable
                return binding.parameter, self._reader(binding), not binding.required, nullable
        return None

    def _fields_entry(self) -> tuple[Reader, bool] | None:
        """Reader of the object whose fields are parameters, whether one of them is required."""
        fields = [binding for binding in self.bindings if binding.source == "field"]
        return (self._reader(fields[0]), any(binding.required for binding in fields)) if fields else None

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
            ctx: what the context parameter receives; None where the step has none.
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
                raise InvalidInput(f"input of {self.where}", [("$", f"missing, parameter {name!r} needs it")])
        elif self._fields is not None:
            self._spread(bound, input_json)
        if self._reads:
            self._read(bound, outputs)
        for name in self._contexts:
            bound[name] = ctx
        for name, resource in self._uses:
            bound[name] = resources[resource]
        return bound

    def _read(self, bound: dict[str, Any], outputs: Mapping[str, Text | None]) -> None:
        for name, step, read, required in self._reads:
            text = outputs.get(step)
            if text is not None:
                try:
                    bound[name] = read(text)
                except ValueError as error:
                    raise InvalidInput(f"output of step {step!r} for {self.where}", problems(error)) from None
            elif required:
                raise InvalidInput(
                    f"output of step {step!r} for {self.where}",
                    [("$", f"missing, parameter {name!r} needs it")],
                )

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
        return InvalidInput(f"input of {self.where}", problems(error))


def payloads_of(
    bindings: Iterable[Binding], where: str, declared: Payload | None, payload_of: Callable[[Any], Payload]
) -> dict[str, Payload | None]:
    """The types of the parameters that are read from JSON, by name.

    Args:
        bindings: of one step.
        where: names the step in errors.
        declared: the workflow's input; None where none is declared.
        payload_of: makes the payload of a type; may keep it for the next step.

    Raises:
        DefinitionError: a parameter's type is none that can be read from JSON.
    """
    found: dict[str, Payload | None] = {}
    for binding in bindings:
        if binding.source == "field":
            found[binding.parameter] = declared
        elif binding.source in ("input", "step") and is_open(bare(binding.hint)):
            found[binding.parameter] = declared if binding.source == "input" else None
        elif binding.source in ("input", "step"):
            try:
                found[binding.parameter] = payload_of(binding.hint)
            except UNBUILDABLE as error:
                raise DefinitionError(
                    f"{where}: parameter {binding.parameter!r} of type {show(bare(binding.hint))} cannot be "
                    f"read from JSON ({first_line(error)}). Use a pydantic model, dataclass, TypedDict or "
                    "builtin type; what cannot be JSON is a resource: Annotated[..., Use(resource)]"
                ) from error
    return found


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    # an object with an `async def __call__` is no coroutine function itself
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def _edges(reads: list[Binding], after: tuple[str, ...]) -> tuple[Edge, ...]:
    """An edge a step: a parameter without a default is the strongest tie, then one with a default, then
    order.
    """
    kinds: dict[str, Edge] = {}
    for binding in reads:
        if binding.required or binding.step not in kinds:
            kinds[binding.step] = Edge(step=binding.step, kind="required" if binding.required else "optional")
    for step in after:
        kinds.setdefault(step, Edge(step=step, kind="after"))
    return tuple(kinds.values())
