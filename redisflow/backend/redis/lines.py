"""Lines of an export, an event each in wire form: read, and held against what the keys can hold.

Every line is checked before the first run is written. A `RunSubmitted` may carry the plan of its version in the field `plan`, which
is no part of the wire form: readers that do not know it pass it by.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pydantic_core
from pydantic import ValidationError

from redisflow.backend import keys as k
from redisflow.backend.types import Submission
from redisflow.codec import encode_event
from redisflow.model.errors import InvalidInput, RedisflowError
from redisflow.model.events import parse_event
from redisflow.model.workflow import Plan

ESCAPED: Final = 6
"""Characters that one byte of a payload can take in a line: an escape."""
BESIDE: Final = 8 * 1_048_576
"""Characters that all else in a line may have, a plan included."""
FIRST: Final = frozenset({"RunSubmitted", "WorkflowStarted"})
"""What a history can begin with: only these name the workflow."""
_PAYLOADS: Final = ("input", "output", "data")
_LARGEST: Final = {"timestampUs": 2**53, "availableAtUs": 2**53, "attemptNumber": 2**24, "workflowAttemptNumber": 2**16}
"""Bounds of what the run's packed fields and the scores of sorted sets hold; the wire form has wider ones."""
Wire = dict[str, Any]


@dataclass(frozen=True)
class Histories:
    """What the lines of an export hold.

    Attributes:
        runs: checked events in wire form by run, runs and events in the order of the lines.
        plans: the plans that came along, by version.
    """

    runs: dict[str, list[Wire]] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)


def submission_of(history: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The RunSubmitted of a run; None where its history has none."""
    return next((wire for wire in history if wire["type"] == "RunSubmitted"), None)


def read_histories(lines: Iterable[str | bytes], *, limit: int) -> Histories:
    """Checked events and plans.

    Args:
        lines: JSON objects; blank lines are passed by.
        limit: largest payload of an event (bytes). A line that could hold no such event is not even decoded.

    Raises:
        InvalidInput: names the line and what is wrong with it.
    """
    found = Histories()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if len(line) > ESCAPED * limit + BESIDE:
                too_long = f"has {len(line):,} characters: over any event with {limit:,} of payload"
                raise InvalidInput("event", [("$", too_long)])
            data = _read(line)
            wire = parse_event(data).to_wire()
            _check(wire, limit)
            history = found.runs.setdefault(wire["runId"], [])
            _check_place(wire, history)
            if wire["type"] == "RunSubmitted" and data.get("plan") is not None:
                found.plans[wire["versionId"]] = _read_plan(data["plan"], wire)
        except InvalidInput as error:
            raise InvalidInput(f"line {number}", error.problems) from None
        except (RedisflowError, ValueError, TypeError, OverflowError, RecursionError) as error:
            text = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InvalidInput(f"line {number}", [("$", text)]) from None
        history.append(wire)
    return found


def _read(line: str | bytes) -> Wire:
    text = line.decode() if isinstance(line, bytes) else line
    data = json.loads(text, parse_constant=_no_number)
    if not isinstance(data, dict):
        raise InvalidInput("line", [("$", "is no JSON object")])
    return data


def _read_plan(data: object, wire: Mapping[str, Any]) -> Plan:
    """The plan that came with a submission; its hash proves that it is the one the run was submitted with."""
    way_out = "without the field the run comes in as history only"
    try:
        plan = Plan.model_validate(data)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in ("plan", *problem["loc"]))
        raise InvalidInput("event", [(place, f"{problem['msg']}; {way_out}")]) from None
    if (plan.slug, plan.version) != (wire["workflowSlug"], wire["versionId"]):
        named = f"{wire['versionId']} of {wire['workflowSlug']!r}"
        raise InvalidInput("event", [("plan", f"is {plan.version} of {plan.slug!r}, not {named}; {way_out}")])
    return plan


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _check(wire: Mapping[str, Any], limit: int) -> None:
    """Refuse what the wire form allows and the keys cannot hold.

    Raises:
        RedisflowError, ValueError: what is wrong, in words.
    """
    k.check_run_id(wire["runId"])
    k.check_slug(wire["workflowSlug"])
    if (wire["category"] == "step") != ("stepId" in wire):
        raise InvalidInput("event", [("stepId", "belongs to events of category step, and to each of them")])
    if "stepId" in wire:
        k.check_step_id(wire["stepId"])
    for name, bound in _LARGEST.items():
        if not 0 <= wire.get(name, 0) < bound:
            raise InvalidInput("event", [(name, f"is not from 0 to {bound - 1}")])
    for name in _PAYLOADS:
        if isinstance(wire.get(name), str):
            _check_payload(name, wire[name], limit)
    if wire["type"] == "RunSubmitted":
        Submission(
            priority=wire["priority"], available_at_us=wire["availableAtUs"], timeout_us=wire.get("timeoutUs"),
            tags=wire.get("tags", ()),
        ).check()  # fmt: skip
    encode_event(wire)


def _check_payload(name: str, text: str, limit: int) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > limit:
        raise InvalidInput("event", [(name, f"is over the limit of {limit:,} bytes (REDISFLOW_MAX_PAYLOAD_BYTES)")])
    try:
        pydantic_core.from_json(text.encode())
    except ValueError as error:
        raise InvalidInput("event", [(name, f"is not JSON text, {error}")]) from None


def _check_place(wire: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an event that cannot follow the events of its run before it."""
    if not history:
        if wire["type"] not in FIRST:
            raise InvalidInput(
                "event", [("type", f"run {wire['runId']!r} must begin with {' or '.join(sorted(FIRST))}")]
            )
    elif history[0]["workflowSlug"] != wire["workflowSlug"]:
        raise InvalidInput(
            "event", [("workflowSlug", f"run {wire['runId']!r} began in {history[0]['workflowSlug']!r}")]
        )
