"""A submit form made from a workflow's JSON Schema, and the input that was typed into it.

Texts, numbers, choices and switches become fields, objects become groups of fields; everything else (lists, alternatives, free
objects) is a field of JSON text. What was typed is only read here: whether it fits the schema is for the client to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redisflow.model.errors import InvalidInput

DEEPEST = 3
MOST_FIELDS = 100
LONG_TEXT = 200
FieldKind = Literal["text", "long", "integer", "number", "boolean", "choice", "json"]


@dataclass(frozen=True)
class Field:
    """A field of the form: `path` leads to its place in the input, `value` stands in it at first."""

    path: tuple[str, ...]
    label: str
    kind: FieldKind
    required: bool
    help: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def name(self) -> str:
        """The path with dots."""
        return ".".join(self.path)


def fields_of(schema: Mapping[str, Any] | None) -> tuple[Field, ...] | None:
    """The fields of an object schema; None where the input is one JSON text."""
    if schema is None:
        return None
    found: list[Field] = []
    root = _resolve(schema, schema)
    if not isinstance(root.get("properties"), Mapping):
        return None
    _add_object(root, schema, (), found, True)
    return tuple(found) if len(found) <= MOST_FIELDS else None


def _add_object(
    part: Mapping[str, Any], schema: Mapping[str, Any], path: tuple[str, ...], found: list[Field], needed: bool
) -> None:
    required = part.get("required", ())
    for name, given in part["properties"].items():
        inner = _resolve(given, schema) if isinstance(given, Mapping) else {}
        full = (*path, str(name))
        must = needed and name in required
        if isinstance(inner.get("properties"), Mapping) and len(path) < DEEPEST and must:
            _add_object(inner, schema, full, found, must)
        else:
            found.append(_field(full, inner, must))


def _field(path: tuple[str, ...], part: Mapping[str, Any], required: bool) -> Field:
    kind = _kind(part)
    default = part.get("default")
    choices = tuple(json.dumps(choice, ensure_ascii=False) for choice in part["enum"]) if kind == "choice" else ()
    if default is None:
        value = ""
    elif kind in ("text", "long"):
        value = str(default)
    else:
        value = json.dumps(default, ensure_ascii=False)
    limits = [part.get(limit) if isinstance(part.get(limit), int | float) else None for limit in ("minimum", "maximum")]
    about = str(part.get("description") or "")
    return Field(path, str(part.get("title") or path[-1]), kind, required, about, value, choices, limits[0], limits[1])


def _kind(part: Mapping[str, Any]) -> FieldKind:
    if isinstance(part.get("enum"), list):
        return "choice"
    kinds: dict[Any, FieldKind] = {"integer": "integer", "number": "number", "boolean": "boolean", "string": "text"}
    named = part.get("type")
    kind = kinds.get(named, "json") if isinstance(named, str) else "json"
    return "long" if kind == "text" and (part.get("maxLength") or 0) > LONG_TEXT else kind


def _resolve(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema with its local reference followed; what stands beside the reference wins."""
    seen = 0
    while isinstance(part.get("$ref"), str) and part["$ref"].startswith("#/") and seen < DEEPEST:
        target: Any = schema
        for key in part["$ref"][2:].split("/"):
            target = target.get(key.replace("~1", "/").replace("~0", "~"), {}) if isinstance(target, Mapping) else {}
        rest = {name: value for name, value in part.items() if name != "$ref"}
        part = {**target, **rest} if isinstance(target, Mapping) else rest
        seen += 1
    kinds = part.get("anyOf")
    if isinstance(kinds, list) and all(isinstance(kind, Mapping) for kind in kinds):
        named = [kind for kind in kinds if kind.get("type") != "null"]
        if len(named) == 1 and len(kinds) == 2:  # it may be left out: an empty field stands for null
            about = {name: value for name, value in part.items() if name != "anyOf"}
            return {**_resolve(named[0], schema), **about}
    return part


def read_fields(fields: tuple[Field, ...], typed: Mapping[str, str]) -> dict[str, Any]:
    """The input that was typed; optional fields that are empty are left out.

    Args:
        fields: of the form.
        typed: text by name of field.

    Raises:
        InvalidInput: a field holds no number or no JSON; the problem names it.
    """
    found: dict[str, Any] = {}
    problems = []
    for field in fields:
        text = typed.get(field.name, "")
        if field.kind == "boolean" and not text:
            text = "false" if field.required else ""
        if not text and not (field.required and field.kind in ("text", "long")):
            continue
        try:
            _put(found, field.path, text if field.kind in ("text", "long") else read_json(text))
        except ValueError as error:
            problems.append((field.name, f"is no {_WORDS.get(field.kind, 'JSON')}: {error}"))
    if problems:
        raise InvalidInput("the form", problems)
    return found


_WORDS = {"integer": "whole number", "number": "number"}


def read_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none; JSON knows neither NaN nor infinities.
    """

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number in JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _put(found: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        found = found.setdefault(name, {})
    found[path[-1]] = value
