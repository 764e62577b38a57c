"""Annotations of step functions: read where the function was declared, and compared with each other.

Reading takes the local names of the declaring frame, so that classes of a test function work, also where
annotations are text. A hint that cannot be read is kept as its error, since it matters only where the hint is
needed.

Comparing is on the side of the user: it finds what cannot work (a `Receipt` into a `list[int]`), and lets
pass what it is not sure of, as values travel as JSON and may well be read as another type than they were
written as.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, NewType, TypeVar, Union, get_args, get_origin

import typing_extensions
from pydantic import BaseModel, RootModel

NO_HINT: Any = inspect.Parameter.empty
"""Stands for a missing annotation, as in `inspect`."""

_ALIASES = tuple({typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType)})
_JSON_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bool, int, float), "number"),
    ((str, bytes), "string"),
    (dict, "object"),
    ((list, tuple, set, frozenset), "array"),
)


class Unreadable:
    """A hint that could not be evaluated, with the reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def read_hints(fn: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluated annotations by parameter, `return` among them.

    Args:
        fn: the function.
        names: local names of the place of its declaration.
    """
    target = fn if hasattr(fn, "__annotations__") else type(fn).__call__
    try:
        return typing.get_type_hints(target, localns=dict(names), include_extras=True)
    except Exception:  # noqa: BLE001 -- an annotation is code of the user, and may raise anything
        return _read_one_by_one(target, names)


def _read_one_by_one(fn: Callable[..., Any], names: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    where = getattr(inspect.unwrap(fn), "__globals__", {})
    for name, annotation in inspect.get_annotations(fn).items():
        carrier: Any = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(typing.get_type_hints(carrier, where, dict(names), include_extras=True))
        except Exception as error:  # noqa: BLE001 -- as above
            found[name] = Unreadable(error)
    return found


def markers(hint: Any, kind: type) -> list[Any]:
    """Instances of `kind` in the metadata of an `Annotated` hint."""
    return [item for item in hint.__metadata__ if isinstance(item, kind)] if get_origin(hint) is Annotated else []


def bare(hint: Any) -> Any:
    """The hint without `Annotated`, `NewType` and aliases."""
    while True:
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, _ALIASES):
            hint = hint.__value__
        else:
            return type(None) if hint is None else hint


def members(hint: Any) -> list[Any]:
    """Members of a union, without None unless it is all there is; else the hint itself."""
    hint = bare(hint)
    if get_origin(hint) not in (Union, types.UnionType):
        return [hint]
    found = [inner for member in get_args(hint) for inner in members(member)]
    return [member for member in found if member is not type(None)] or found


def is_open(hint: Any) -> bool:
    """Whether the hint says nothing."""
    return hint is NO_HINT or hint is Any or hint is object or isinstance(hint, (TypeVar, Unreadable, str))


def same_type(one: Any, other: Any) -> bool:
    """Whether two hints name the same type, None in a union aside."""
    if is_open(bare(one)) or is_open(bare(other)):
        return False
    mine, theirs = members(one), members(other)
    return all(m in theirs for m in mine) and all(t in mine for t in theirs)


def clash(produced: Any, wanted: Any) -> bool:
    """Whether a value of the first type certainly cannot be read as the second."""
    produced, wanted = bare(produced), bare(wanted)
    if produced is type(None) and type(None) in get_args(wanted):
        return False
    return all(_members_clash(p, w) for p in members(produced) for w in members(wanted))


def _members_clash(produced: Any, wanted: Any) -> bool:
    if is_open(produced) or is_open(wanted) or produced == wanted:
        return False
    origins = get_origin(produced), get_origin(wanted)
    if Literal in origins:
        return False
    if origins[0] is not None and origins[0] is origins[1]:
        mine, theirs = get_args(produced), get_args(wanted)
        if len(mine) != len(theirs) or Ellipsis in mine + theirs:
            return False
        return any(clash(p, w) for p, w in zip(mine, theirs, strict=True))
    p, w = origins[0] or produced, origins[1] or wanted
    kinds = _json_kind(p), _json_kind(w)
    if None in kinds:
        return False
    return kinds[0] != kinds[1] or (_is_record(p) and _is_record(w) and _records_clash(p, w))


def _json_kind(cls: Any) -> str | None:
    """What a value of the class is in JSON; None where that is not certain."""
    if not isinstance(cls, type) or issubclass(cls, (Enum, RootModel)):
        return None
    if cls is type(None):
        return "null"
    if _is_record(cls):
        decorators = getattr(cls, "__pydantic_decorators__", None)
        return None if decorators is not None and decorators.model_serializers else "object"
    return next((kind for classes, kind in _JSON_KINDS if issubclass(cls, classes)), None)


def _is_record(cls: type) -> bool:
    return typing_extensions.is_typeddict(cls) or dataclasses.is_dataclass(cls) or issubclass(cls, BaseModel)


def _records_clash(produced: Any, wanted: Any) -> bool:
    """Classes by inheritance, typed dicts by their keys."""
    typed_dicts = [typing_extensions.is_typeddict(cls) for cls in (produced, wanted)]
    if all(typed_dicts):
        return bool(wanted.__required_keys__ - set(produced.__annotations__))
    return not any(typed_dicts) and not issubclass(produced, wanted) and not issubclass(wanted, produced)


def show(hint: Any) -> str:
    """A hint nearly as it was written."""
    if hint is type(None):
        return "None"
    name = getattr(hint, "__name__", None) if get_origin(hint) is None else None
    return name or str(hint).replace("typing.", "")
