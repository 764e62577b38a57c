"""What a run's derived keys must hold, by the Python fold of its stream: the hash field by field, and its places in sorted sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from redisflow.backend.keys import Keys
from redisflow.backend.redis.header import (
    MALFORMED,
    STATUSES,
    STEP_STATUSES,
    Header,
    StepField,
    parse_header,
    parse_step,
)
from redisflow.model.derived import Entry, RunFold, StepFold, StepPlan
from redisflow.model.invariants import Violation

INLINE = 62
SOMEWHERE = -1.0
"""A place whose score is no fold: that of `running`, the last heartbeat."""
_STEP_LETTER = {word: letter for letter, word in STEP_STATUSES.items()}
_RUN_LETTER = {word: letter for letter, word in STATUSES.items()}
_KINDS = {"completed": "c", "failed": "f", "skipped": "k", "reclaimed": "r", "released": "l", "-": "-"}


@dataclass(frozen=True)
class Snapshot:
    """A run as it was read, and its fold.

    Attributes:
        hash: the fields of the run's hash.
        whole: nothing was ever deleted from the stream.
    """

    run_id: str
    entries: list[Entry]
    fold: RunFold
    hash: Mapping[str, bytes]
    plan_number: int
    plan: Mapping[str, StepPlan]
    slug: str
    whole: bool

    @property
    def last_id(self) -> str:
        """Stream id of the last event."""
        return self.entries[-1].stream_id

    @property
    def names(self) -> set[str]:
        """Steps that have events or a field in the hash."""
        return {*self.fold.steps, *(name[2:] for name in self.hash if name.startswith("s:"))}


class Place(NamedTuple):
    """A member that must stand in a sorted set with a score, or must not (None)."""

    key: str
    member: str
    score: float | None
    rule: str


def expected_header(snapshot: Snapshot) -> Header:
    """The run hash's `h` field."""
    fold, plan = snapshot.fold, snapshot.plan
    statuses = [step.status for step in fold.steps.values()]
    ended = sum(status in ("completed", "failed", "skipped") for status in statuses)
    unplanned = sum(name not in plan for name in fold.steps)
    return Header(
        _RUN_LETTER.get(fold.status, "-"),
        bool(fold.failed), snapshot.plan_number, fold.priority, fold.attempt,
        len(plan) + unplanned - ended, sum(status in ("scheduled", "running") for status in statuses),
        statuses.count("completed"), fold.created, fold.started or 0, fold.ended or 0, fold.timeout or 0,
    )  # fmt: skip


def expected_step(snapshot: Snapshot, name: str) -> StepField:
    """The run hash's `s:<step>` field."""
    step = snapshot.fold.steps.get(name) or StepFold(level=snapshot.fold.priority)
    return StepField(
        _STEP_LETTER[step.status], step.attempt, step.level, step.failures, step.crashes,
        snapshot.fold.unmet(snapshot.plan, name),
        step.available if step.status == "scheduled" else step.lease, step.ended, _KINDS[step.kind],
    )  # fmt: skip


def check_hash(snapshot: Snapshot) -> list[Violation]:
    """Fields of the run's hash that differ."""
    fold = snapshot.fold
    expected: dict[str, object] = {"h": expected_header(snapshot)}
    expected.update((f"s:{name}", expected_step(snapshot, name)) for name in snapshot.names)
    expected.update((f"o:{name}", _stored(step.output)) for name, step in fold.steps.items() if step.output)
    expected.update((f"u:{name}", str(step.since)) for name, step in fold.steps.items() if step.since)
    expected["f"] = fold.failed or ""
    if fold.failures:
        expected["e"] = "1"
    if fold.input:
        expected["i"] = _stored(fold.input)
    if not snapshot.plan_number:
        expected["w"] = fold.slug
    found = {name: _parse_field(name, raw) for name, raw in snapshot.hash.items()}
    found.setdefault("f", "")
    return [
        Violation(snapshot.run_id, "hash", f"field {name} is {found.get(name)!r}, expected {expected.get(name)!r}")
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]


def places(keys: Keys, snapshot: Snapshot) -> Iterator[Place]:
    """Every place that the run must or must not have in the sorted sets that its own state names."""
    fold, run_id = snapshot.fold, snapshot.run_id
    for name in snapshot.names:
        step = fold.steps.get(name) or StepFold(level=fold.priority)
        queue = snapshot.plan[name].queue if name in snapshot.plan else snapshot.slug
        queued = step.available if fold.live and step.status == "scheduled" else None
        yield Place(keys.scheduled(queue, step.level), f"{run_id}|{name}", queued, "queue")
        at_work = SOMEWHERE if fold.live and step.status == "running" else None
        yield Place(keys.running, f"{run_id}|{name}", at_work, "running")
    for status in STATUSES.values():
        yield Place(keys.index(snapshot.slug, status), run_id, fold.created if status == fold.status else None, "index")
    for tag in fold.tags:
        yield Place(keys.tag(snapshot.slug, tag), run_id, fold.created, "index")
    for stream_id, at in fold.failures:
        yield Place(keys.failures, f"{run_id}|{stream_id}", at, "failures")
    yield Place(keys.ended, run_id, None if fold.live else fold.ended, "retention")
    yield Place(keys.deadlines, f"run:{run_id}", fold.deadline if fold.live else None, "deadlines")


def check_progress(snapshot: Snapshot, expanding: bool) -> list[Violation]:
    """A live run of the engine always has something under way."""
    fold = snapshot.fold
    if not fold.live or expanding or not snapshot.plan_number:
        return []
    if any(step.status in ("scheduled", "running") for step in fold.steps.values()):
        return []
    return [Violation(snapshot.run_id, "stranded", "the run is live, but none of its steps is scheduled or running")]


def _stored(payload: tuple[str, str]) -> str:
    stream_id, text = payload
    return f"={text}" if len(text.encode()) <= INLINE else f"@{stream_id}"


def _parse_field(name: str, raw: bytes) -> object:
    try:
        if name == "h":
            return parse_header(raw)
        return parse_step(raw) if name.startswith("s:") else raw.decode()
    except MALFORMED:
        return raw
