"""Arguments held to what is allowed, before anything is read or written; every refusal names the argument.

What may be a key is said in `keys.py`, what may be an event by the models; here is the rest, and what lists of those must be. All
raise `InvalidArgument`. None is refused unless a function says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from redisflow.backend import keys as k
from redisflow.model.errors import InvalidArgument

MOST: Final = 2**53 - 1
"""Largest integer that a score holds exactly."""
MOST_ATTEMPTS: Final = 2**24 - 1
"""Largest attempt number that a step's field holds."""


def check_integer(
    argument: str, value: object, least: int = 0, most: int = MOST, *, optional: bool = False, unit: str = "an integer",
    allowed: str = "",
) -> None:  # fmt: skip
    """Refuse what is no integer of a range; with `optional` None is one too. `allowed` says the range in better words."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        bound = f"{unit}, {least} or more" if most == MOST else f"{unit} from {least} to {most}"
        raise InvalidArgument(argument, value, allowed or bound + ", or None" * optional)


def check_time(argument: str, value: object) -> None:
    """Refuse what is no time; None is one."""
    check_integer(argument, value, optional=True, unit="microseconds since the epoch")


def check_span(argument: str, value: object, *, optional: bool = False) -> None:
    """Refuse what is no duration."""
    check_integer(argument, value, optional=optional, unit="microseconds")


def check_attempt(argument: str, value: object, *, optional: bool = False) -> None:
    """Refuse what is no number of an attempt."""
    check_integer(argument, value, 1, MOST_ATTEMPTS, optional=optional)


def check_text(argument: str, value: str) -> str:
    """A name: the text itself; refuses an empty one, and lone surrogates, which are escaped on reading: another name then."""
    if not isinstance(value, str) or not value:
        raise InvalidArgument(argument, value, "text, not empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidArgument(argument, value, "text that can be written in UTF-8") from None
    return value


def check_note(argument: str, value: str | None) -> str | None:
    """Free text, or None; it may be empty."""
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(argument, value, "text, or None")
    return value


def check_flag(argument: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidArgument(argument, value, "True or False")


def check_list(argument: str, value: Iterable[Any], what: str) -> list[Any]:
    """The items; refuses one text or mapping, and what has no items. `what` says what the items are."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InvalidArgument(argument, value, f"a list of {what}")
    return list(value)


def check_words(argument: str, value: Iterable[str]) -> list[str]:
    """Texts that are not empty."""
    return [check_text(argument, word) for word in check_list(argument, value, "words")]


def check_steps(argument: str, value: Iterable[str]) -> tuple[str, ...]:
    """Step ids."""
    return tuple(k.check_step_id(step, argument) for step in check_list(argument, value, "step ids"))


def check_step(workflow_slug: str, run_id: str, step_id: str) -> None:
    """Refuse names that cannot be those of a step."""
    k.check_slug(workflow_slug)
    k.check_run_id(run_id)
    k.check_step_id(step_id)
