"""The steps of a workflow while they are being declared: every rule that concerns one step and those above
it.

A step is checked whole before it is added, so a step that is refused leaves nothing behind, and the cell of a
notebook can be run again once it is mended.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redisflow.define.binding import RESERVED, Scope, bind_parameters, did_you_mean
from redisflow.define.hints import NO_HINT, Unreadable, read_hints
from redisflow.define.payloads import UNBUILDABLE, Payload, first_line
from redisflow.define.retries import RetryOption, compile_policy
from redisflow.define.source import code_hash
from redisflow.define.steps import Step, is_async, payloads_of
from redisflow.model.errors import DefinitionError
from redisflow.model.workflow import SLUG, STEP_NAME
from redisflow.settings import Duration, parse_duration

StepKey = Callable[..., Any] | str
"""How a step is named in code: its function, or its id."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """What was said of a step besides its function, as it was written; see `Workflow.step`."""

    name: str | None = None
    retry: RetryOption = None
    timeout: Duration | None = None
    export: bool = False
    after: Sequence[StepKey] = ()
    queue: str | None = None
    isolate: bool = False


class Declaration:
    """The steps declared so far.

    Args:
        slug: of the workflow.
        input_type: the declared type of the input, `NO_HINT` where there is none.
        output_type: likewise of the output.
        names: local names of the place where the workflow is declared.

    Attributes:
        where: names the workflow in errors.
        steps: by id, in the order of their declaration.
        sealed: whether there can be no more.
        input: the declared input; None where there is none.
        output: likewise.
        input_name: the parameter name that takes the input, once one does.
        fields: parameters that are fields of the input.

    Raises:
        DefinitionError: a type is none that has a JSON form.
    """

    def __init__(self, slug: str, input_type: Any, output_type: Any, names: Mapping[str, Any]) -> None:
        self.where = f"workflow {slug!r}"
        self.input_type = input_type
        self._cache: dict[Any, Payload] = {}
        self.input = self._declared(input_type, "input", names)
        self.output = self._declared(output_type, "output", names)
        self.steps: dict[str, Step] = {}
        self.sealed = False
        self.input_name: str | None = None
        self.fields: frozenset[str] = frozenset()
        self._ids: dict[Callable[..., Any], list[str]] = {}

    def declare(self, fn: Callable[..., Any], options: StepOptions, names: Mapping[str, Any]) -> None:
        """Add a step.

        Args:
            fn: its function.
            options: what was said of it.
            names: local names of the place of its declaration.

        Raises:
            DefinitionError: something is wrong with it; the message names the step and the fix.
        """
        step_id = options.name if options.name is not None else getattr(fn, "__name__", "")
        where = f"step {step_id!r} of {self.where}"
        check_function(fn, where)
        check_name(step_id, STEP_NAME, where, "name")
        self._check_id(step_id, where)
        _check_executor(fn, options, where)
        if options.queue is not None:
            check_name(options.queue, SLUG, where, "queue")
        policy, timeout_us = compile_policy(options.retry, where), micros(options.timeout, where)
        after = self._after(options.after, where)
        hints = read_hints(fn, names)
        returns = hints.pop("return", NO_HINT)
        bindings = bind_parameters(fn, hints, self._scope(where))
        step = Step(
            id=step_id,
            fn=fn,
            where=where,
            bindings=bindings,
            payloads=payloads_of(bindings, where, self.input, lambda hint: self._payload(hint, names)),
            returns=NO_HINT if isinstance(returns, Unreadable) else returns,
            code=code_hash(fn),
            retry=policy,
            timeout_us=timeout_us,
            export=options.export,
            queue=options.queue,
            after=after,
            isolate=options.isolate,
        )
        self._add(step)

    def _add(self, step: Step) -> None:
        self.steps[step.id] = step
        self._ids.setdefault(step.fn, []).append(step.id)
        inputs = (binding.parameter for binding in step.bindings if binding.source == "input")
        self.input_name = self.input_name or next(inputs, None)

    def _scope(self, where: str) -> Scope:
        return Scope(
            where=where,
            returns={step.id: step.returns for step in self.steps.values()},
            find_step=self.find,
            input_type=self.input_type,
            input_name=self.input_name,
            fields=self.fields,
        )

    def _check_id(self, step_id: str, where: str) -> None:
        if self.sealed:
            raise DefinitionError(
                f"{where}: the workflow is sealed since its first submit or worker start: declare all steps before"
            )
        if step_id in self.steps:
            raise DefinitionError(f"{where}: there is a step of this name already: pass another, step(name=...)")
        if step_id in RESERVED or step_id == self.input_name:
            raise DefinitionError(
                f"{where}: parameters named {step_id!r} mean the "
                f"{'context' if step_id == 'ctx' else 'input'}: rename the step, or pass step(name=...)"
            )
        for step in self.steps.values():
            if any(b.parameter == step_id and b.source == "default" for b in step.bindings):
                raise DefinitionError(
                    f"{where}: step {step.id!r} above has a parameter {step_id!r}, which keeps its "
                    f"default: declare {step_id!r} above {step.id!r} to feed it, or rename the parameter"
                )

    def _after(self, keys: Sequence[StepKey], where: str) -> tuple[str, ...]:
        if isinstance(keys, str) or not isinstance(keys, Sequence):
            raise DefinitionError(f"{where}: after={keys!r} is not a list of steps: write after=[step]")
        return tuple(dict.fromkeys(self.find(key, f"{where}: after={key!r}") for key in keys))

    def find(self, key: StepKey, where: str) -> str:
        """The id of a step declared so far.

        Args:
            key: its function or id.
            where: names who asks, in errors.

        Raises:
            DefinitionError: there is none, or several.
        """
        if isinstance(key, str):
            if key in self.steps:
                return key
            wanted = key
        else:
            ids = self._ids.get(key, []) if callable(key) else []
            if len(ids) == 1:
                return ids[0]
            wanted = getattr(key, "__name__", repr(key))
            if ids:
                raise DefinitionError(f"{where}: {wanted!r} is the function of steps {ids}: name one of them by its id")
        raise DefinitionError(
            f"{where}: {wanted!r} is no step declared above (there are: {', '.join(self.steps) or 'none'}). "
            f"{did_you_mean(wanted, self.steps)}Declare it above, with @step"
        )

    def _payload(self, hint: Any, names: Mapping[str, Any]) -> Payload:
        try:
            found = self._cache.get(hint)
        except TypeError:  # metadata that has no hash
            return Payload(hint, names)
        if found is None:
            found = self._cache[hint] = Payload(hint, names)
        return found

    def _declared(self, declared: Any, what: str, names: Mapping[str, Any]) -> Payload | None:
        if declared is NO_HINT:
            return None
        try:
            return self._payload(declared, names)
        except UNBUILDABLE as error:
            raise DefinitionError(
                f"{self.where}: {what}={declared!r} is no type with a JSON form "
                f"({first_line(error)}): use a pydantic model, dataclass, TypedDict or builtin type"
            ) from error


def check_function(fn: object, where: str) -> None:
    """Refuse what cannot be a step.

    Raises:
        DefinitionError: it is no function, or one that yields.
    """
    if not callable(fn) or inspect.isclass(fn):
        raise DefinitionError(f"{where}: {fn!r} is not a function: decorate a `def` or `async def`")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DefinitionError(f"{where}: a step returns its output: collect into a list instead of using `yield`")


def check_name(value: object, pattern: str, where: str, what: str) -> None:
    """Refuse a name that does not match; `what` is the argument that it came as.

    Raises:
        DefinitionError: it does not.
    """
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        allowed = "letters, digits, '_' and '-'" if pattern == STEP_NAME else "letters, digits, '_', '.' and '-'"
        raise DefinitionError(f"{where}: {what} {value!r} is not allowed: pass {what}= with {allowed}, 1 to 64 of them")


def micros(value: Duration | None, where: str) -> int | None:
    """A timeout in µs, None for none.

    Raises:
        DefinitionError: it is no duration, or zero.
    """
    if value is None:
        return None
    try:
        found = parse_duration(value)
    except (ValueError, AttributeError) as error:
        raise DefinitionError(f"{where}: timeout={value!r}: {error}") from error
    if found == 0:
        raise DefinitionError(f"{where}: timeout={value!r} leaves no time: write for example '30s', or leave it out")
    return found


def _check_executor(fn: Callable[..., Any], options: StepOptions, where: str) -> None:
    if options.timeout is not None and not options.isolate and not is_async(fn):
        raise DefinitionError(
            f"{where}: timeout={options.timeout!r} on a plain function, which runs in a thread that can't be "
            "killed: use `async def`, pass isolate=True to run it in a process of its own, or leave the timeout out"
        )
