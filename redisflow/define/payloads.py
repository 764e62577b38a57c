"""Declared types at the border to JSON: reading payload text into them, and checking values against them.

A `Payload` wraps pydantic's adapter of one type. Text goes straight into the validator, without a detour over
dicts, since this is on the way of every step. Where no type is declared there is nothing to validate, and
`read_plain` is all there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import pydantic_core
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from redisflow.define.hints import NO_HINT, Unreadable, is_open, read_hints
from redisflow.model.errors import InvalidArgument, InvalidInput

Reader = Callable[[str | bytes], Any]
"""Turns JSON text into a value; raises ValueError (pydantic's ValidationError is one)."""

read_plain: Reader = pydantic_core.from_json

UNBUILDABLE = (PydanticUserError, PydanticUndefinedAnnotation, NameError, TypeError)
"""What `Payload` raises for a type that pydantic cannot handle."""


class Payload:
    """One declared type.

    Args:
        declared: any type that pydantic takes.
        names: local names of the place of declaration, for types whose fields are annotated with text.

    Attributes:
        declared: the type.
        read: JSON text to a value of the type.
        nullable: whether the type takes None.
    """

    __slots__ = ("_adapter", "declared", "nullable", "read")

    def __init__(self, declared: Any, names: Mapping[str, Any]) -> None:
        self.declared = declared
        self._adapter: TypeAdapter[Any] = TypeAdapter(declared)
        if not self._adapter.pydantic_complete:
            self._adapter.rebuild(force=True, raise_errors=True, _types_namespace=dict(names))
        self.read: Reader = self._adapter.validator.validate_json
        try:
            self.read("null")
            self.nullable = True
        except ValidationError:
            self.nullable = False

    def check(self, value: object, what: str) -> Any:
        """Validate a value and give it back in a form that has only JSON's types where that is possible.

        Raises:
            InvalidInput: it does not fit; `what` names it.
        """
        try:
            valid = self._adapter.validate_python(value)
        except ValidationError as error:
            raise InvalidInput(what, problems(error)) from None
        try:
            return self._adapter.dump_python(valid, mode="json", by_alias=True, warnings=False)
        except pydantic_core.PydanticSerializationError:
            return valid  # the encoder of payloads describes what has no JSON form

    def schema(self, mode: Literal["validation", "serialization"]) -> dict[str, Any] | None:
        """JSON Schema of the type; None where it has none."""
        try:
            return self._adapter.json_schema(mode=mode)
        except PydanticUserError:
            return None


def problems(error: ValueError) -> list[tuple[str, str]]:
    """(dotted field path, message) of each problem of a failed read or validation; `$` stands for the whole."""
    if isinstance(error, ValidationError):
        return [(".".join(map(str, p["loc"])) or "$", p["msg"]) for p in error.errors(include_url=False)]
    return [("$", str(error))]


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def value_reader(fn: Callable[[], Any]) -> Reader:
    """How the JSON text of its value is read: as the return annotation says, where there is one."""
    if not callable(fn):
        raise InvalidArgument("fn", fn, "a function without arguments, plain or async")
    inner = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    hint = read_hints(inner, {}).get("return", NO_HINT)
    if isinstance(hint, Unreadable) or is_open(hint):
        return read_plain
    try:
        return Payload(hint, {}).read
    except UNBUILDABLE:  # such a value has no JSON form of its own either
        return read_plain
