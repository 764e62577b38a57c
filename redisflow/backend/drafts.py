"""Events on their way in: made from arguments, and held to what a store can keep before anything is written.

The event models say what the wire form allows. What is refused on top of it would break the store: ids that cannot be keys, numbers
that do not fit their packed field or a score, payloads that are no JSON text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from redisflow.backend import keys as k
from redisflow.backend.checks import MOST, MOST_ATTEMPTS, check_integer, check_steps, check_text
from redisflow.backend.types import Submission
from redisflow.codec import decode_payload, encode_payload
from redisflow.model.errors import InvalidArgument, PayloadTooLarge
from redisflow.model.events import EVENT_TYPES, BaseEvent, StepError, parse_event
from redisflow.model.fingerprints import describe_exception

GivenEvent = BaseEvent | Mapping[str, Any]
"""An event as a caller gives it: a model, or its wire form, in which id and time may be missing."""
GivenError = BaseException | StepError | Mapping[str, Any]
"""An exception, or what is known of it: `message`, and `name` and `stack` where known."""

_ARGUMENTS: Final = {
    "available_at_us": "available_at", "next_retry_at_us": "next_retry_at", "last_heartbeat_us": "last_heartbeat",
    "stale_threshold_us": "stale_threshold", "stale_duration_us": "stale_duration", "timeout_us": "timeout",
    "next_attempt": "next_attempt_number",
}  # fmt: skip
_STEPS: Final = frozenset({"step_id", "failed_step", "cascaded_from"})
_STEP_LISTS: Final = frozenset({"dependencies", "retried_steps"})
_NAMES: Final = frozenset({"worker_id", "original_worker_id", "reclaimed_by", "version_id", "name"})
_NUMBERS: Final = {
    **dict.fromkeys(("available_at_us", "next_retry_at_us", "last_heartbeat_us"), (0, MOST)),
    **dict.fromkeys(("duration_us", "stale_threshold_us", "stale_duration_us"), (0, MOST)),
    **dict.fromkeys(("attempt_number", "next_attempt"), (1, MOST_ATTEMPTS)),
    "workflow_attempt_number": (1, 2**32 - 1), "priority": (-100, 100),
}  # fmt: skip
_CUSTOM: Final = re.compile(r"x\.[A-Za-z0-9_.-]{1,62}")
"""Types of events that are not the engine's: every fold passes them by."""
_PAYLOADS: Final = {"RunSubmitted": "input", "StepCompleted": "output", "StepCheckpoint": "data"}
_BOUNDS: Final = {
    "timestampUs": (0, MOST), "availableAtUs": (0, MOST), "nextRetryAtUs": (0, MOST),
    "lastHeartbeatUs": (0, MOST), "durationUs": (-MOST, MOST), "staleThresholdUs": (-MOST, MOST),
    "staleDurationUs": (-MOST, MOST), "attemptNumber": (1, MOST_ATTEMPTS), "nextAttempt": (1, MOST_ATTEMPTS),
    "workflowAttemptNumber": (1, 2**32 - 1),
}  # fmt: skip


class Checked(NamedTuple):
    """An event that can be stored: its wire form, and the id and time that the caller gave, if any."""

    wire: dict[str, Any]
    event_id: str
    timestamp_us: int | None


def make_event(kind: str, workflow_slug: str, run_id: str, **fields: Any) -> dict[str, Any]:
    """The wire form of an event, without id and time, from the arguments of a save.

    Args:
        kind: the event's type.
        workflow_slug: the run's workflow.
        run_id: the run.
        fields: the event's other fields by their Python names.

    Raises:
        InvalidArgument: names the first argument that does not fit.
    """
    k.check_slug(workflow_slug)
    k.check_run_id(run_id)
    model = EVENT_TYPES[kind]
    for name, value in fields.items():
        declared = model.model_fields.get(name)
        if value is not None or (declared is not None and declared.is_required()):
            _check_field(name, _ARGUMENTS.get(name, name), value)
    try:
        event = model(event_id="0", timestamp_us=0, workflow_slug=workflow_slug, run_id=run_id, **fields)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        raise _refusal(model, problem["loc"], problem["input"], problem["msg"]) from None
    wire = event.to_wire()
    del wire["eventId"], wire["timestampUs"]
    return wire


def _check_field(name: str, argument: str, value: Any) -> None:
    """Refuse what the wire form would take, and a store would not."""
    if name in _STEPS:
        k.check_step_id(value, argument)
    elif name == "original_run_id":
        k.check_run_id(value, argument)
    elif name in _NAMES:
        check_text(argument, value)
    elif name in _STEP_LISTS:
        check_steps(argument, value)
    elif name in _NUMBERS:
        check_integer(argument, value, *_NUMBERS[name])
    elif isinstance(value, bytes):
        raise InvalidArgument(argument, value, "text")


def _refusal(model: type[BaseEvent], loc: tuple[int | str, ...], value: object, message: str) -> InvalidArgument:
    first = str(loc[0])
    name = next((name for name, field in model.model_fields.items() if field.alias == first), first)
    path = ".".join([_ARGUMENTS.get(name, name), *(str(part) for part in loc[1:])])
    return InvalidArgument(path, value, message[:1].lower() + message[1:])


def check_event(workflow_slug: str, run_id: str, event: GivenEvent, *, limit: int) -> Checked:
    """Hold an event to the wire form and to what can be stored.

    Args:
        workflow_slug: the run's workflow.
        run_id: the run.
        event: a model or its wire form.
        limit: cap of a payload in bytes.

    Raises:
        InvalidArgument: the event is of another run, its type is unknown, or a value is out of range.
        InvalidInput: a field is missing or has the wrong form.
        PayloadTooLarge: the payload is over the cap.
    """
    k.check_slug(workflow_slug)
    k.check_run_id(run_id)
    if not isinstance(event, BaseEvent | Mapping):
        raise InvalidArgument("event", event, "an event, or its wire form")
    given = event.to_wire() if isinstance(event, BaseEvent) else {n: v for n, v in event.items() if v is not None}
    kind = given.get("type")
    if not isinstance(kind, str) or (kind not in EVENT_TYPES and not _CUSTOM.fullmatch(kind)):
        raise InvalidArgument("type", kind, "x. and a name of your own, or one of " + ", ".join(EVENT_TYPES))
    for name, expected in (("workflowSlug", workflow_slug), ("runId", run_id)):
        if given.get(name, expected) != expected:
            raise InvalidArgument(name, given[name], f"{expected!r}, as the call says")
    filled = {"eventId": "0", "timestampUs": 0, "workflowSlug": workflow_slug, "runId": run_id, **given}
    wire = parse_event(filled).to_wire()
    _check_ranges(wire)
    _check_payload(wire, limit)
    if kind == "RunSubmitted":
        Submission(
            priority=wire["priority"], available_at_us=wire["availableAtUs"], timeout_us=wire.get("timeoutUs"),
            idempotency_key=wire.get("idempotencyKey"), tags=wire.get("tags", ()),
        ).check()  # fmt: skip
    return Checked(
        wire, wire["eventId"] if "eventId" in given else "", wire["timestampUs"] if "timestampUs" in given else None
    )


def _check_ranges(wire: Mapping[str, Any]) -> None:
    if "stepId" in wire:
        k.check_step_id(wire["stepId"])
    if int(wire["eventId"]) >= 2**53:
        raise InvalidArgument("eventId", wire["eventId"], "digits of a number below 2**53")
    for name, (low, high) in _BOUNDS.items():
        value = wire.get(name)
        if value is not None and not low <= value <= high:
            raise InvalidArgument(name, value, f"an integer from {low} to {high}")


def _check_payload(wire: Mapping[str, Any], limit: int) -> None:
    """WorkflowCompleted is left out: its output is made of outputs that were held to the cap one by one."""
    name = _PAYLOADS.get(wire["type"], "")
    text = wire.get(name)
    if text is None:
        return
    try:
        size = len(text.encode())
        decode_payload(text)
    except ValueError:
        raise InvalidArgument(name, text, "JSON text in UTF-8") from None
    if size > limit:
        raise PayloadTooLarge(f"{name} of {wire['type']}", size, limit)


def describe_error(error: GivenError) -> StepError:
    """What is stored of an error.

    Raises:
        InvalidArgument: it is no exception and has no message.
    """
    if isinstance(error, StepError):
        return error
    if isinstance(error, BaseException):
        return describe_exception(error)
    allowed = "an exception, or message, and name and stack where known, all text"
    if not isinstance(error, Mapping) or not isinstance(error.get("message"), str):
        raise InvalidArgument("error", error, allowed)
    if not all(isinstance(error.get(part), str | None) for part in ("name", "stack")):
        raise InvalidArgument("error", error, allowed)
    return StepError(message=error["message"], name=error.get("name"), stack=error.get("stack"))


def json_text(argument: str, value: object, *, limit: int | None = None) -> str:
    """JSON text of a value.

    Args:
        argument: what it came as.
        value: the value.
        limit: cap in bytes; None where the event's is looked at when it is appended.

    Raises:
        InvalidArgument: the value contains itself.
        PayloadTooLarge: the text is over the cap.
    """
    try:
        return encode_payload(value, what=argument, limit=limit)
    except ValueError as error:
        raise InvalidArgument(argument, value, f"a value with a JSON form ({error})") from None
