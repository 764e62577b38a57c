"""What the spans of a run are made of, read from the run itself: traced processes alone do so.

The trace context of the submission stands in the metadata, that of a failed attempt in its StepFailed. An attempt that was taken
back left none: its StepStarted names it. A run's end stands in the stream behind the event that brought it about, which says whose
doing it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
Entries = list[tuple[bytes, dict[bytes, bytes]]]
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


async def traced_runs(
    backend: RedisBackend, run_ids: Sequence[str], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, tuple[TracedRun, bool]]:
    """Runs as spans need them, and whether they have ended, in one round trip; without those that are gone.

    Args:
        backend: opened.
        run_ids: their ids.
        known: metadata of runs that were read before, by id.
    """

    async def read() -> list[Any]:
        pipe = backend.client.pipeline(transaction=False)
        for run_id in run_ids:
            keys = backend.keys_of(run_id)
            pipe.hmget(keys.run(run_id), "h", "w")
            if run_id not in known:
                pipe.xrange(keys.events(run_id), count=1)
        answers: list[Any] = await pipe.execute()
        return answers

    answers = iter(await backend.server.retry(read))
    found = {}
    for run_id in run_ids:
        raw, slug = next(answers)
        entries = [] if run_id in known else next(answers)
        if raw is None:
            continue
        header = parse_header(raw)
        info = await backend.plan_info(backend.partition(run_id), header.plan) if header.plan else None
        name = info.slug if info else (slug or b"-").decode()
        context = dict(unpack(entries[0][1][b"data"]).get("md") or {}) if entries else known.get(run_id, {})
        found[run_id] = TracedRun(name, run_id, header.attempt, header.created, context), header.status in "cfx"
    return found


async def latest_entries(backend: RedisBackend, run_ids: Sequence[str]) -> dict[str, Entries]:
    """The latest entries of runs, newest first, in one round trip."""

    async def read() -> list[Any]:
        pipe = backend.client.pipeline(transaction=False)
        for run_id in run_ids:
            pipe.xrevrange(backend.keys_of(run_id).events(run_id), count=LATEST)
        answers: list[Any] = await pipe.execute()
        return answers

    return dict(zip(run_ids, await backend.server.retry(read), strict=True))


def _time(stream_id: bytes) -> int:
    micros, _, number = stream_id.partition(b"-")
    return int(micros) + int(number)


async def earlier_attempts(backend: RedisBackend, run_id: str, step_id: str) -> list[str | Execution]:
    """A step's attempts that failed, by the traceparent they left, or were taken back; the oldest first."""
    found: list[str | Execution] = []
    lease = 0
    for stream_id, entry in reversed((await latest_entries(backend, [run_id]))[run_id]):
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


def _ending(entries: Entries) -> Ending | None:
    outcome, at, error, by, begun_at = "", 0, "", None, None
    for stream_id, entry in entries:
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


def export_end(run: TracedRun, entries: Entries, by: tuple[str, int] | None) -> None:
    """Export the span of an ended run if it ended by the end of this step and attempt; None: by a cancel or its deadline."""
    ending = _ending(entries) if tracing.chooses_ids() else None
    if ending is not None and ending.by == by:
        begun_at = ending.begun_at or run.begun_us
        tracing.run_ended(replace(run, begun_us=begun_at), ending.outcome, ending.at, ending.error)


async def export_stopped(backend: RedisBackend, run_id: str) -> None:
    """Export the span of a run that this process has just cancelled, or found past its deadline; a failure to do so is logged."""
    try:
        found = (await traced_runs(backend, [run_id], {})).get(run_id)
        entries = (await latest_entries(backend, [run_id]))[run_id]
    except RedisflowError as error:
        log.warning("a run has no span: %s  run=%s", error, run_id)
        return
    if found is not None and found[1]:
        export_end(found[0], entries, None)


async def export_reclaimed(backend: RedisBackend, taken: Reclaimed) -> None:
    """Export the span of an attempt that was taken back, and of its run where that ended by it."""
    try:
        found = (await traced_runs(backend, [taken.run_id], {})).get(taken.run_id)
        entries = (await latest_entries(backend, [taken.run_id]))[taken.run_id]
    except RedisflowError as error:
        log.warning("an attempt has no span: %s  run=%s", error, taken.run_id)
        return
    if found is None:
        return
    run, has_ended = found
    wanted = _of(taken)
    ended_at = next((_time(at) for at, entry in entries if wanted(b"StepReclaimed", entry)), None)
    lease = next((int(at.partition(b"-")[0]) for at, entry in entries if wanted(b"StepStarted", entry)), None)
    if ended_at is not None and lease is not None:
        tracing.reclaimed(run, Execution(taken.step_id, taken.attempt_number, lease), ended_at, taken.worker_id)
    if has_ended:
        export_end(run, entries, (taken.step_id, taken.attempt_number))


def _of(taken: Reclaimed) -> Callable[[bytes, dict[bytes, bytes]], bool]:
    def wanted(kind: bytes, entry: dict[bytes, bytes]) -> bool:
        same = entry[b"type"] == kind and entry[b"step"].decode() == taken.step_id
        return same and unpack(entry[b"data"])["a"] == taken.attempt_number

    return wanted
