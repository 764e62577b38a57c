"""Where each parameter of a step comes from, decided when the step is declared.

The rules, in their order: a marker in the annotation (`Use`, `From`) says it; `ctx`, or an annotation
`StepContext`, is the context; the name of a step declared above is that step's output; the input parameter is
named `input`, or like the one that an earlier step took, or is annotated with the input type. A parameter
with a default that none of this fits keeps its default. Anything else is a mistake, and is told at once with
the fix: a typo must never bind something silently.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from redisflow.define.context import StepContext
from redisflow.define.hints import (
    NO_HINT,
    Unreadable,
    bare,
    clash,
    is_open,
    markers,
    members,
    same_type,
    show,
)
from redisflow.define.resources import Resource, Use
from redisflow.model.errors import DefinitionError

RESERVED = frozenset({"ctx", "input"})
"""Parameter names that mean the context and the input, hence no names of steps."""

_SCALARS = (str, int, float, bool, bytes)


class From:
    """Marks a parameter that receives the output of a step under another name: `Annotated[T, From(step)]`.

    Args:
        step: the step's function, or its id.
    """

    __slots__ = ("step",)

    def __init__(self, step: Callable[..., Any] | str) -> None:
        self.step = step

    def __repr__(self) -> str:
        return f"From({getattr(self.step, '__name__', self.step)!r})"


@dataclass(frozen=True, slots=True)
class Binding:
    """One parameter and its source.

    Attributes:
        parameter: its name.
        source: the workflow's input, a field of it, a step's output, the context, a resource, or its own
            default.
        hint: its evaluated annotation, `NO_HINT` where there is none.
        required: whether it has no default.
        step: the step whose output it is.
        resource: the resource that it is.
    """

    parameter: str
    source: Literal["input", "field", "step", "context", "resource", "default"]
    hint: Any
    required: bool
    step: str = ""
    resource: Resource[Any] | None = None


@dataclass(slots=True)
class Scope:
    """What a parameter can refer to at the point where its step is declared.

    Attributes:
        where: names the step in errors, such as `step 'charge' of workflow 'checkout'`.
        returns: return hints of the steps above, by id.
        find_step: a function or id to the id of a step above; raises DefinitionError with the fix.
        input_type: the declared input type, `NO_HINT` where there is none.
        input_name: the parameter name under which steps above take the input.
        fields: parameters that are fields of the input.
    """

    where: str
    returns: Mapping[str, Any]
    find_step: Callable[[Callable[..., Any] | str, str], str]
    input_type: Any = NO_HINT
    input_name: str | None = None
    fields: frozenset[str] = frozenset()


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`Did you mean 'charge'? `, or nothing where nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}? " if near else ""


def bind_parameters(fn: Callable[..., Any], hints: Mapping[str, Any], scope: Scope) -> tuple[Binding, ...]:
    """Decide where each parameter of a step comes from.

    Raises:
        DefinitionError: a parameter fits no rule, or its annotation cannot go with its source.
    """
    bound = tuple(
        _bind(parameter, hints.get(parameter.name, NO_HINT), scope)
        for parameter in inspect.signature(fn).parameters.values()
    )
    inputs = [binding.parameter for binding in bound if binding.source == "input"]
    for name in inputs:
        known = scope.input_name or inputs[0]
        if name != known:
            _fail(
                scope,
                f"parameter {name!r} takes the input, which is {known!r} elsewhere",
                f"the input has one name in the whole workflow: rename it to {known!r}",
            )
    return bound


def is_context(parameter: inspect.Parameter, hint: Any) -> bool:
    """Whether a parameter receives the context."""
    return parameter.name == "ctx" or any(StepContext in getattr(m, "__mro__", ()) for m in _sure_members(hint))


def check_kind(parameter: inspect.Parameter, where: str) -> None:
    """Refuse parameters that cannot be passed by name.

    Raises:
        DefinitionError: it is `*args`, `**kwargs` or positional-only.
    """
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise DefinitionError(f"{where}: {parameter} cannot be bound: name each parameter that the step needs")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise DefinitionError(
            f"{where}: {parameter.name!r} is positional-only: remove the '/', steps are called by name"
        )


def _sure_members(hint: Any) -> list[Any]:
    return [] if isinstance(hint, Unreadable) else members(hint)


def _bind(parameter: inspect.Parameter, hint: Any, scope: Scope) -> Binding:
    check_kind(parameter, scope.where)
    name, required = parameter.name, parameter.default is parameter.empty
    if uses := markers(hint, Use):
        return Binding(name, "resource", hint, required, resource=uses[0].resource)
    if froms := markers(hint, From):
        step = scope.find_step(froms[0].step, f"{scope.where}: parameter {name!r}")
        return _from_step(step, name, hint, required, scope)
    if is_context(parameter, hint):
        return Binding(name, "context", hint, required)
    if name in scope.fields:
        return Binding(name, "field", hint, required)
    if name in scope.returns:
        return _from_step(name, name, hint, required, scope)
    if name in ("input", scope.input_name) or _means_input(name, hint, required, scope):
        return _from_input(name, hint, required, scope)
    if required:
        _unbound(name, hint, scope)
    return Binding(name, "default", hint, required)


def _means_input(name: str, hint: Any, required: bool, scope: Scope) -> bool:
    """Whether the annotation alone makes this the input.

    `sep: str = ","` does not mean an input of type str, and where a step above has nearly this name and gives
    the same type, a typo is likelier than the input.
    """
    if isinstance(hint, Unreadable) or not same_type(hint, scope.input_type):
        return False
    if not required and all(member in _SCALARS for member in members(scope.input_type)):
        return False
    for near in difflib.get_close_matches(name, list(scope.returns), cutoff=0.75):
        if scope.input_name is None and not clash(scope.returns[near], hint):
            _fail(
                scope,
                f"parameter {name!r} may be the input or a misspelt {near!r}",
                f"name it {near!r} for the output of that step, or 'input' for the input",
            )
    return True


def _from_step(step: str, name: str, hint: Any, required: bool, scope: Scope) -> Binding:
    _check_readable(name, hint, scope)
    produced = scope.returns[step]
    if clash(produced, hint):
        _fail(
            scope,
            f"parameter {name!r} is annotated {show(hint)}, but step {step!r} returns {show(produced)}",
            "make the two annotations agree",
        )
    return Binding(name, "step", hint, required, step=step)


def _from_input(name: str, hint: Any, required: bool, scope: Scope) -> Binding:
    _check_readable(name, hint, scope)
    if clash(scope.input_type, hint):
        _fail(
            scope,
            f"parameter {name!r} is annotated {show(hint)}, but the input is {show(scope.input_type)}",
            f"annotate it with {show(scope.input_type)}",
        )
    return Binding(name, "input", hint, required)


def _check_readable(name: str, hint: Any, scope: Scope) -> None:
    if isinstance(hint, Unreadable):
        _fail(
            scope,
            f"the annotation of parameter {name!r} cannot be read ({hint.error})",
            "import its type at run time, not only under TYPE_CHECKING, and above the step",
        )


def _unbound(name: str, hint: Any, scope: Scope) -> NoReturn:
    """Tell what the parameter could have been."""
    _check_readable(name, hint, scope)
    known = [*scope.returns, scope.input_name or "input", "ctx"]
    steps = ", ".join(scope.returns) or "none"
    fixes = ["name it like a step declared above"]
    if is_open(bare(scope.input_type)):
        fixes.append("name it 'input' to take the input")
    else:
        fixes.append(f"annotate it with {show(scope.input_type)} to take the input")
    fixes.append("mark it Annotated[..., Use(resource)] or Annotated[..., From(step)], or give it a default")
    _fail(
        scope,
        f"parameter {name!r} is neither a step (above: {steps}) nor the input",
        did_you_mean(name, known) + _joined(fixes),
    )


def _joined(fixes: Sequence[str]) -> str:
    text = "; ".join(fixes)
    return text[0].upper() + text[1:]


def _fail(scope: Scope, problem: str, fix: str) -> NoReturn:
    raise DefinitionError(f"{scope.where}: {problem}. {fix[0].upper()}{fix[1:]}")
