"""Bytes in and out: JSON payloads here, the msgpack envelope of an event below.

Payloads (inputs, outputs, checkpoints) are JSON text made by pydantic-core, and are never unpickled. What JSON cannot hold is
kept in a described form instead of being lost: see `encode_payload`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgpack
import pydantic_core

from redisflow.model.errors import PayloadTooLarge

MAX_DEPTH = 200
"""Arrays and objects inside each other that a payload may have: what its readers take."""


def _describe(value: object) -> Any:
    """Stand-in for a value without a JSON form: its type and its repr, cut to 1,000 characters."""
    return {"__type__": f"{type(value).__module__}.{type(value).__qualname__}", "__repr__": repr(value)[:1000]}


def encode_payload(value: object, *, what: str = "payload", limit: int | None = None) -> str:
    """JSON text of a value: pydantic models, dataclasses, dates, UUIDs, sets, bytes and all that pydantic-core knows.

    NaN and infinities become the strings `"NaN"`, `"Infinity"`, `"-Infinity"`; lone surrogates are escaped; any other object
    becomes `{"__type__": …, "__repr__": …}`.

    Args:
        value: what to encode.
        what: names the value in errors.
        limit: cap in bytes; None for no cap.

    Raises:
        PayloadTooLarge: the text is over the cap.
        ValueError: the value is nested over 200 deep, or contains itself.
    """
    if value is None:
        return "null"
    try:
        raw = pydantic_core.to_json(value, fallback=_describe, inf_nan_mode="strings", bytes_mode="utf8")
    except (pydantic_core.PydanticSerializationError, UnicodeError):
        raw = pydantic_core.to_json(_plain(value, 0), fallback=_describe, inf_nan_mode="strings", bytes_mode="base64")
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _check_depth(raw, what)
    if limit is not None and len(raw) > limit:
        raise PayloadTooLarge(what, len(raw), limit)
    return raw.decode()


def _check_depth(raw: bytes, what: str) -> None:
    """Refuse what could be written, but never read again."""
    try:
        pydantic_core.from_json(raw)
    except ValueError:
        raise ValueError(f"{what} is nested over {MAX_DEPTH} deep: flatten it") from None


def _plain(value: object, depth: int) -> object:
    """Rebuild what pydantic-core refused: surrogates escaped, bytes kept, keys made text, cycles refused."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the value is nested over {MAX_DEPTH} deep, or contains itself")
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value is None or isinstance(value, (bool, int, float, bytes)):
        return value
    if isinstance(value, dict):
        return {
            (k if isinstance(k, str) else repr(k)).encode("utf-8", "backslashreplace").decode(): _plain(v, depth + 1)
            for k, v in value.items()
        }
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, depth + 1) for item in value]
    try:
        python = pydantic_core.to_jsonable_python(
            value, fallback=_describe, inf_nan_mode="strings", bytes_mode="base64"
        )
    except (pydantic_core.PydanticSerializationError, UnicodeError):
        return _plain(_describe(value), depth + 1)
    return _plain(python, depth + 1)


def decode_payload(text: str | bytes) -> Any:
    """The value that a payload's JSON text holds, as plain dicts, lists, strings and numbers."""
    return pydantic_core.from_json(text)


# --- the envelope -------------------------------------------------------------------------------------------------------
#
# An event has `type`, `step`, `data` and `payload`, which backend/entries.py finds in the stream. `data` is a msgpack map with the
# short names below (a run of twelve events is half as long for it); `payload` is its one large JSON text. lua/ has the same names.

_CODES = {
    "attemptNumber": "a", "reason": "r", "availableAtUs": "v", "retryDelayMs": "rd", "priority": "p", "policyIndex": "pi",
    "attemptInPolicy": "ap", "workerId": "wi", "dependencies": "dp", "slotIndex": "sl", "workerConcurrency": "wc",
    "durationUs": "d", "exportOutput": "x", "resourceUsage": "ru", "error": "e", "errorFingerprints": "fp", "terminal": "t",
    "nextRetryAtUs": "nr", "failureReason": "f", "stream": "st", "message": "m", "nextAttempt": "na", "maxRetries": "mr",
    "totalPolicies": "tp", "resourceSnapshot": "rp", "originalWorkerId": "ow", "reclaimedBy": "rb", "lastHeartbeatUs": "lh",
    "staleThresholdUs": "th", "staleDurationUs": "sd", "skipType": "k", "metadata": "md", "cascadedFrom": "cf", "name": "nm",
    "sequenceNumber": "sn", "label": "lb", "parentCheckpoint": "pc", "versionId": "vi", "hasInputSchema": "hs",
    "timeoutUs": "tm", "idempotencyKey": "ik", "tags": "tg", "workflowAttemptNumber": "w", "hasInput": "hi", "hasSchema": "hc",
    "success": "ok", "validationErrors": "ve", "totalSteps": "n", "completedSteps": "c", "failedStep": "s",
    "originalRunId": "oi", "resumedSteps": "rn", "pendingSteps": "pn", "previousAttemptNumber": "pw", "retriedSteps": "rt",
    "parentRunId": "pr", "rerunFromStepId": "rf", "rerunStepIds": "ri", "parentVersionId": "pv",
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}
PAYLOADS = {
    "RunSubmitted": "input",
    "StepCompleted": "output",
    "StepCheckpoint": "data",
    "WorkflowCompleted": "output",
}
"""Types of events that may have a payload, and the wire name of it."""
_REASONS = {"initial": "i", "retry": "r", "dependency-satisfied": "d"}
_REASON_NAMES = {code: name for name, code in _REASONS.items()}
_HASHES = ("nameHash", "messageHash", "stackExactHash", "stackNormalizedHash", "stackPortableHash")
_OUTER = frozenset({"eventId", "timestampUs", "workflowSlug", "runId", "category", "stepId", "type"})
# Fields of our own: pl plan number, wf slug where there is no plan, dl delay in µs, ts given time, sv saved (no transition of the
# engine), ih hash of the idempotency key (ix: whose record is in another partition), un first release for lack of code, go imported
# with its plan, tc traceparent of a failed attempt.

STEP_EVENT = "step"
WORKFLOW_EVENT = "workflow"


def pack(fields: Mapping[str, Any]) -> bytes:
    """Msgpack in the old raw form, the only one that Redis's cmsgpack reads."""
    return msgpack.packb(fields, use_bin_type=False, unicode_errors="surrogatepass")  # type: ignore[no-any-return]


def make_packer() -> Callable[[Mapping[str, Any]], bytes]:
    """A `pack` for small maps and one thread: it keeps its buffer, and takes a quarter of the time."""
    return msgpack.Packer(use_bin_type=False, unicode_errors="surrogatepass").pack  # type: ignore[no-any-return]


def unpack(data: bytes) -> dict[str, Any]:
    """The map that `pack` or a script made; bytes that are no UTF-8 are kept as escapes.

    Raises:
        ValueError, msgpack.UnpackException: the bytes are no such map.
    """
    if not data:
        return {}
    try:
        return msgpack.unpackb(data, raw=False, strict_map_key=False, unicode_errors="backslashreplace")  # type: ignore[no-any-return]
    except TypeError as error:  # a key that is a list or a map
        raise ValueError(f"no envelope: {error}") from None


def encode_event(wire: Mapping[str, Any], **own: Any) -> tuple[str, str, bytes, str]:
    """What is stored of an event given in wire form.

    Args:
        wire: the event's fields by their wire names.
        own: fields of our own for the envelope, by their codes; None is left out.

    Returns:
        Its `type`, `step`, `data` and `payload`.
    """
    kind = wire["type"]
    payload_name = PAYLOADS.get(kind)
    fields: dict[str, Any] = {}
    for name, value in wire.items():
        if value is None or name in _OUTER or name == payload_name:
            continue
        if name == "errorFingerprints":
            value = [value[key] for key in _HASHES]
        elif name == "reason" and kind == "StepScheduled":
            value = _REASONS[value]
        fields[_CODES.get(name, name)] = value
    fields.update((code, value) for code, value in own.items() if value is not None)
    payload = wire.get(payload_name) if payload_name else None
    return kind, wire.get("stepId") or "", pack(fields), "" if payload is None else payload


def entry_id(stream_id: str) -> int:
    """The wire id of an event with the stream id `<µs>-<sequence>`: their sum."""
    millis, _, seq = stream_id.partition("-")
    return int(millis) + int(seq)


def decode_event(
    stream_id: str, entry: Mapping[bytes, bytes], slug: str, run_id: str, version_of: Callable[[int], str]
) -> dict[str, Any]:
    """The wire form of a stored event.

    Args:
        stream_id: `<µs>-<sequence>`.
        entry: its `type`, `step`, `data` and `payload`.
        slug: slug of the run's workflow.
        run_id: the run.
        version_of: gives the version of a plan number.
    """
    kind, step = entry[b"type"].decode(), entry[b"step"].decode()
    fields = unpack(entry[b"data"])
    number = entry_id(stream_id)
    at = fields.pop("ts", number)
    wire: dict[str, Any] = {
        "eventId": str(number), "timestampUs": at, "workflowSlug": slug, "runId": run_id,
        "category": STEP_EVENT if step else WORKFLOW_EVENT, "type": kind,
    }  # fmt: skip
    if step:
        wire["stepId"] = step
    delay = fields.pop("dl", None)
    plan_number = fields.pop("pl", None)
    saved = fields.pop("sv", None)
    for own in ("wf", "ih", "ix", "un", "go", "tc"):
        fields.pop(own, None)
    for code, value in fields.items():
        wire[_NAMES.get(code, code)] = value
    if "errorFingerprints" in wire:
        wire["errorFingerprints"] = dict(zip(_HASHES, wire["errorFingerprints"], strict=True))
    payload_name = PAYLOADS.get(kind)
    if payload_name and entry[b"payload"]:
        wire[payload_name] = entry[b"payload"].decode()
    if plan_number is not None and "versionId" not in wire:
        wire["versionId"] = version_of(plan_number)
    _complete_wire(wire, kind, at, delay if delay is not None or saved else 0)
    return wire


def _complete_wire(wire: dict[str, Any], kind: str, at: int, delay: int | None) -> None:
    """Fill in what the envelope leaves out because it follows from the rest."""
    if kind == "StepScheduled":
        wire["reason"] = _REASON_NAMES.get(wire["reason"], wire["reason"])
        wire.setdefault("availableAtUs", at + (delay or 0))
        if wire["reason"] == "retry" and delay is not None:
            wire.setdefault("retryDelayMs", delay // 1000)
    elif kind == "RunSubmitted":
        wire.setdefault("availableAtUs", at + (delay or 0))
        wire.setdefault("priority", 0)
        wire.setdefault("hasInputSchema", False)
        wire.setdefault("versionId", "unknown")
    elif kind == "WorkflowStarted":
        wire.setdefault("versionId", "unknown")
    elif kind == "WorkflowCompleted":
        wire.setdefault("output", "{}")


def compose_output(exported: Mapping[str, str]) -> str:
    """JSON text of a workflow's output: an object, step name to output, of its exported steps."""
    return "{" + ",".join(f"{encode_payload(step)}:{text}" for step, text in exported.items()) + "}"


def decode_events(
    entries: Iterable[tuple[bytes, Mapping[bytes, bytes]]], slug: str, run_id: str, version_of: Callable[[int], str]
) -> Iterator[dict[str, Any]]:
    """The wire form of a run's whole stream; a WorkflowCompleted gets its output from the exported steps before it."""
    exported: dict[str, str] = {}
    for stream_id, entry in entries:
        wire = decode_event(stream_id.decode(), entry, slug, run_id, version_of)
        if wire["type"] == "StepCompleted" and wire.get("exportOutput"):
            exported[wire["stepId"]] = wire["output"]
        elif wire["type"] == "WorkflowCompleted" and not entry[b"payload"]:
            wire["output"] = compose_output(exported)
        yield wire
