"""`task`: a function as a workflow of one step, for when there is nothing to orchestrate.

The task stays callable with the function's own signature. Its input is the function's one parameter, or,
where there are several, an object with a field for each; context and resources are no input. Its output is
what the function returns.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, NotRequired, ParamSpec, Protocol, TypeVar, overload

from pydantic import ConfigDict
from typing_extensions import TypedDict

from redisflow.define.binding import From, check_kind, is_context
from redisflow.define.declaration import StepOptions, check_function
from redisflow.define.hints import NO_HINT, Unreadable, markers, read_hints
from redisflow.define.resources import Use
from redisflow.define.retries import RetryOption
from redisflow.define.workflow import Workflow, make_workflow
from redisflow.model.errors import DefinitionError
from redisflow.settings import Duration

P = ParamSpec("P")
R = TypeVar("R")
Out = TypeVar("Out")


class Task(Generic[P, R, Out]):
    """A function that is a workflow too; made by `task`.

    Calling it calls the function. Clients and workers take it where they take a workflow.

    Attributes:
        fn: the function.
        workflow: the workflow of one step, whose output is what the function returns.
    """

    fn: Callable[P, R]
    workflow: Workflow[Any, Out]

    def __init__(self, fn: Callable[P, R], workflow: Workflow[Any, Out]) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.workflow = workflow

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, as if it had never been decorated."""
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<Task {self.workflow.slug}>"

    def __reduce__(self) -> str:
        return self.fn.__qualname__  # pickled by name, as the function it stands for would be


class TaskDecorator(Protocol):
    """What `task(...)` with arguments gives."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, Out]], /) -> Task[P, Coroutine[Any, Any, Out], Out]: ...
    @overload
    def __call__(self, fn: Callable[P, Out], /) -> Task[P, Out, Out]: ...


@overload
def task(fn: Callable[P, Coroutine[Any, Any, Out]], /) -> Task[P, Coroutine[Any, Any, Out], Out]: ...
@overload
def task(fn: Callable[P, Out], /) -> Task[P, Out, Out]: ...
@overload
def task(
    *,
    slug: str | None = None,
    name: str | None = None,
    retry: RetryOption = None,
    timeout: Duration | None = None,
    queue: str | None = None,
    isolate: bool = False,
) -> TaskDecorator: ...
def task(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    slug: str | None = None,
    name: str | None = None,
    retry: RetryOption = None,
    timeout: Duration | None = None,
    queue: str | None = None,
    isolate: bool = False,
) -> Any:
    """Make a workflow of one step from a function: decorate it, with or without arguments.

    Args:
        fn: the function.
        slug: id of the workflow; the function's name by default.
        name: of the workflow, for people.
        retry: as of a step.
        timeout: of one attempt; for `async def` only.
        queue: where it stands when it may run; the slug by default.
        isolate: as of a step.

    Raises:
        DefinitionError: something is wrong with the function; the message names it and the fix.
    """
    names = dict(sys._getframe(1).f_locals)
    options = StepOptions(retry=retry, timeout=timeout, queue=queue, isolate=isolate, export=True)

    def make(fn: Callable[..., Any]) -> Task[Any, Any, Any]:
        return _make(fn, slug, name, options, names)

    return make if fn is None else make(fn)


def _make(
    fn: Callable[..., Any], slug: str | None, name: str | None, options: StepOptions, names: Mapping[str, Any]
) -> Task[Any, Any, Any]:
    slug = slug or str(getattr(fn, "__name__", ""))
    where = f"task {slug!r}"
    check_function(fn, where)
    hints = read_hints(fn, names)
    inputs = _input_parameters(fn, hints, where)
    declared = NO_HINT
    if len(inputs) == 1:
        declared = hints.get(inputs[0].name, NO_HINT)
    elif inputs:
        declared = _as_object(slug, inputs, hints)
    returns = hints.get("return", NO_HINT)
    workflow = make_workflow(
        slug,
        input=declared,
        output=NO_HINT if isinstance(returns, Unreadable) else returns,
        name=name,
        names=names,
        input_name=inputs[0].name if len(inputs) == 1 else None,
        fields=frozenset(parameter.name for parameter in inputs) if len(inputs) > 1 else frozenset(),
    )
    workflow._declaration.declare(fn, options, names)
    return Task(fn, workflow)


def _input_parameters(fn: Callable[..., Any], hints: Mapping[str, Any], where: str) -> list[inspect.Parameter]:
    """Parameters that are neither context nor resource."""
    found = []
    for parameter in inspect.signature(fn).parameters.values():
        hint = hints.get(parameter.name, NO_HINT)
        check_kind(parameter, where)
        if isinstance(hint, Unreadable):
            raise DefinitionError(
                f"{where}: the annotation of parameter {parameter.name!r} cannot be read ({hint.error}): "
                "import its type at run time, not only under TYPE_CHECKING, and above the task"
            )
        if markers(hint, From):
            raise DefinitionError(
                f"{where}: {parameter.name!r} asks for a step's output, but a task is one step: use a Workflow"
            )
        if not markers(hint, Use) and not is_context(parameter, hint):
            found.append(parameter)
    return found


def _as_object(slug: str, inputs: list[inspect.Parameter], hints: Mapping[str, Any]) -> Any:
    """A typed dict with a key for each parameter, optional where there is a default; others are refused."""
    fields = {}
    for parameter in inputs:
        hint = hints.get(parameter.name, Any)
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    make: Any = TypedDict  # mypy knows it only as syntax
    made = make(f"input of {slug}", fields)
    made.__pydantic_config__ = ConfigDict(extra="forbid")
    return made
