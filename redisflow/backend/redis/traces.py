"""What the spans of a run are made of, read from the run itself: traced processes alone do so.

The trace context of the submission stands in the metadata, that of a failed attempt in its StepFailed. An attempt that was taken
back left none: its StepStarted names it. A run's end stands in the stream behind the event that brought it about, which says whose
doing it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import parse_header
from redisflow.backend.types import Reclaimed
from redisflow.codec import pack, unpack
from redisflow.model.errors import RedisflowError
from redisflow.tracing import Execution, TracedRun

log = logging.getLogger("redisflow")
LATEST = 1000  # entries of the stream in which earlier attempts, or what ended a run, are looked for
ENDS = {b"WorkflowCompleted": "completed", b"WorkflowFailed": "failed", b"WorkflowCancelled": "cancelled"}
OUTCOMES = (b"StepCompleted", b"StepFailed", b"StepSkipped")


class Ending(NamedTuple):
    """How a run ended.

    Attributes:
        outcome: completed, failed or cancelled.
        at: when (µs).
        error: message, of a failed run.
        by: step and attempt whose end it followed from; None: cancel or deadline.
        begun_at: when the run's attempt began, where it was a retry and that stands near.
    """

    outcome: str
    at: int
    error: str
    by: tuple[str, int] | None
    begun_at: int | None


async def submission_context(backend: RedisBackend, run_id: str) -> Mapping[str, Any]:
    """Metadata that the run was submitted with; {} where it has none."""
    key = backend.keys_of(run_id).events(run_id)
    entries = await backend.server.retry(lambda: backend.client.xrange(key, count=1))
    return dict(unpack(entries[0][1][b"data"]).get("md") or {}) if entries else {}


async def traced_run(
    backend: RedisBackend, run_id: str, submission: Mapping[str, Any] | None = None
) -> tuple[TracedRun, bool] | None:
    """A run as spans need it, and whether it has ended; None where there is no such run.

    Args:
        backend: opened.
        run_id: its id.
        submission: what `submission_context` gave, where it is known.
    """
    key = backend.keys_of(run_id).run(run_id)
    raw, slug = await backend.server.retry(lambda: backend.client.hmget(key, "h", "w"))
    if raw is None:
        return None
    header = parse_header(raw)
    info = await backend.plan_info(backend.partition(run_id), header.plan) if header.plan else None
    name = info.slug if info else (slug or b"-").decode()
    context = await submission_context(backend, run_id) if submission is None else submission
    return TracedRun(name, run_id, header.attempt, header.created, context), header.status in "cfx"


async def _latest(backend: RedisBackend, run_id: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The latest entries of a run, newest first."""
    key = backend.keys_of(run_id).events(run_id)
    entries: list[Any] = await backend.server.retry(lambda: backend.client.xrevrange(key, count=LATEST))
    return entries


def _time(stream_id: bytes) -> int:
    micros, _, number = stream_id.partition(b"-")
    return int(micros) + int(number)


async def earlier_attempts(backend: RedisBackend, run_id: str, step_id: str) -> list[str | Execution]:
    """A step's attempts that failed, by the traceparent they left, or were taken back; the oldest first."""
    found: list[str | Execution] = []
    lease = 0
    for stream_id, entry in reversed(await _latest(backend, run_id)):
        if entry[b"step"].decode() != step_id:
            continue
        if entry[b"type"] == b"StepStarted":
            lease = int(stream_id.partition(b"-")[0])
        elif entry[b"type"] == b"StepReclaimed" and lease:
            found.append(Execution(step_id, unpack(entry[b"data"])["a"], lease))
        elif entry[b"type"] == b"StepFailed" and isinstance(left := unpack(entry[b"data"]).get("tc"), str):
            found.append(left)
    return found


def with_traceparent(data: bytes, traceparent: str | None) -> bytes:
    """The envelope of a StepFailed that names its attempt's span; as it was where there is none."""
    return data if traceparent is None else pack({**unpack(data), "tc": traceparent})


async def _ending(backend: RedisBackend, run_id: str) -> Ending | None:
    outcome, at, error, by, begun_at = "", 0, "", None, None
    for stream_id, entry in await _latest(backend, run_id):
        kind = entry[b"type"]
        if not outcome:
            if kind in ENDS:
                outcome, at = ENDS[kind], _time(stream_id)
                error = str((unpack(entry[b"data"]).get("e") or {}).get("message", ""))
                if kind == b"WorkflowCancelled" or unpack(entry[b"data"]).get("f") == "timeout":
                    break
        elif kind in OUTCOMES:
            data = unpack(entry[b"data"])
            if by is None and data.get("k") != "cascade":
                by = (entry[b"step"].decode(), data["a"])
        elif kind == b"WorkflowRetryStarted":
            begun_at = _time(stream_id)
            break
    return Ending(outcome, at, error, by, begun_at) if outcome else None


async def export_end(
    backend: RedisBackend, run_id: str, by: tuple[str, int] | None, submission: Mapping[str, Any] | None = None
) -> bool:
    """Export the span of a run that has ended by the end of this step and attempt, or, where None, by a cancel or its deadline.

    What goes wrong with that costs the span and is logged, nothing else.
    """
    if not tracing.chooses_ids():
        return False
    try:
        found = await traced_run(backend, run_id, submission)
        ending = await _ending(backend, run_id) if found is not None and found[1] else None
    except RedisflowError as error:
        log.warning("a run has no span: %s  run=%s", error, run_id)
        return False
    if found is None or ending is None or ending.by != by:
        return False
    run = found[0]
    if ending.begun_at is not None:
        run = TracedRun(run.slug, run.id, run.attempt, ending.begun_at, run.submission)
    tracing.run_ended(run, ending.outcome, ending.at, ending.error)
    return True


async def export_reclaimed(backend: RedisBackend, taken: Reclaimed) -> None:
    """Export the span of an attempt that was taken back, and of its run where that ended by it."""
    try:
        found = await traced_run(backend, taken.run_id)
        entries = await _latest(backend, taken.run_id)
    except RedisflowError as error:
        log.warning("an attempt has no span: %s  run=%s", error, taken.run_id)
        return
    if found is None:
        return
    wanted = _of(taken)
    ended_at = next((_time(at) for at, entry in entries if wanted(b"StepReclaimed", entry)), None)
    lease = next((int(at.partition(b"-")[0]) for at, entry in entries if wanted(b"StepStarted", entry)), None)
    if ended_at is not None and lease is not None:
        execution = Execution(taken.step_id, taken.attempt_number, lease)
        tracing.reclaimed(found[0], execution, ended_at, taken.worker_id)
    if found[1]:
        await export_end(backend, taken.run_id, (taken.step_id, taken.attempt_number), found[0].submission)


def _of(taken: Reclaimed) -> Callable[[bytes, dict[bytes, bytes]], bool]:
    def wanted(kind: bytes, entry: dict[bytes, bytes]) -> bool:
        same = entry[b"type"] == kind and entry[b"step"].decode() == taken.step_id
        return same and unpack(entry[b"data"])["a"] == taken.attempt_number

    return wanted
