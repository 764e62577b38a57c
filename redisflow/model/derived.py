"""What the server derives from a run's events: the reference for lua/lib/apply.lua.

The same reducer in Python over decoded events: header, steps with their budgets and leases, and, from those, the memberships in
sorted sets. `redisflow verify` and the tests fold a stream with it and compare with the keys. Pure: events and the plan's edges
come in, a `RunFold` comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STEP_ENDED = frozenset({"completed", "failed", "skipped"})
STEP_ACTIVE = frozenset({"scheduled", "running"})
RUN_LIVE = frozenset({"pending", "running"})


@dataclass(frozen=True)
class StepPlan:
    """What fold and checks need of a compiled step: its dependencies with their edge kinds (`r`, `o`, `a`), queue and budgets."""

    dependencies: Mapping[str, str]
    queue: str
    attempts: int = 1
    crashes: int = 0


@dataclass
class StepFold:
    """A step as its hash field holds it.

    Attributes:
        available: `availableAt` of the last schedule (µs).
        ended, kind: the lease that ended last, and how: completed, failed, skipped, reclaimed, released.
        since: first time it was handed back for lack of code.
        output: stream id and text of the counted completion.
    """

    status: str = "pending"
    attempt: int = 0
    level: int = 0
    failures: int = 0
    crashes: int = 0
    lease: int = 0
    ended: int = 0
    kind: str = "-"
    since: int = 0
    available: int = 0
    output: tuple[str, str] | None = None


@dataclass
class RunFold:
    """A run as its hash holds it."""

    status: str = "-"
    submitted: bool = False
    slug: str = "-"
    priority: int = 0
    created: int = 0
    available: int = 0
    attempt: int = 1
    timeout: int | None = None
    deadline: int | None = None
    started: int | None = None
    ended: int | None = None
    failed: str | None = None
    input: tuple[str, str] | None = None
    tags: tuple[str, ...] = ()
    key_hash: str | None = None
    key_elsewhere: bool = False
    steps: dict[str, StepFold] = field(default_factory=dict)
    latest: int = 0
    """Time of the latest event that is no log line."""
    failures: list[tuple[str, int]] = field(default_factory=list)
    """Stream id and time of every StepFailed."""

    @property
    def live(self) -> bool:
        """Not terminal."""
        return self.status in RUN_LIVE

    def unmet(self, plan: Mapping[str, StepPlan], step: str) -> int:
        """How many dependencies of a step are not done."""
        known = plan.get(step)
        if known is None:
            return 0
        return sum(not met(self.steps[name].status if name in self.steps else "pending", kind)
                   for name, kind in known.dependencies.items())  # fmt: skip


def met(status: str, kind: str) -> bool:
    """Whether a dependency in this status counts as done for an edge of this kind."""
    return status == "completed" or (status == "skipped" and kind != "r")


@dataclass(frozen=True)
class Entry:
    """A stream entry with its envelope decoded to short codes (see redisflow/codec.py)."""

    stream_id: str
    type: str
    step: str
    fields: Mapping[str, Any]
    payload: str

    @property
    def millis(self) -> int:
        """First part of the stream id: µs of the call that wrote it, and the lease of a start in it."""
        return int(self.stream_id.partition("-")[0])

    @property
    def number(self) -> int:
        """Wire id."""
        first, _, second = self.stream_id.partition("-")
        return int(first) + int(second)

    @property
    def at(self) -> int:
        """Time of the event (µs)."""
        return int(self.fields.get("ts", self.number))


def fold_run(entries: Iterable[Entry]) -> RunFold:
    """Fold a run's stream, in order of time, with the submission first."""
    ordered = list(entries)
    if any("ts" in entry.fields for entry in ordered):
        ordered.sort(key=lambda entry: (entry.at, entry.number))
    run = RunFold()
    submission = next((entry for entry in ordered if entry.type == "RunSubmitted"), None)
    if submission is not None:
        _run_submitted(run, submission)
    for entry in ordered:
        if entry.type != "LogEntry":
            run.latest = max(run.latest, entry.at)
        reducer = _REDUCERS.get(entry.type)
        if reducer is not None:
            reducer(run, entry)
    return run


def _step(run: RunFold, entry: Entry) -> StepFold:
    found = run.steps.get(entry.step)
    if found is None:
        found = run.steps[entry.step] = StepFold(level=run.priority)
    return found


def _end_lease(step: StepFold, kind: str) -> None:
    if step.lease:
        step.ended, step.kind, step.lease = step.lease, kind, 0


def _step_scheduled(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    _end_lease(step, "released")
    step.attempt = entry.fields["a"]
    step.level = max(-100, min(100, entry.fields.get("p", run.priority)))
    step.since = entry.fields.get("un", step.since)
    step.available = entry.fields.get("v", entry.at + entry.fields.get("dl", 0))
    if step.status == "failed":
        run.failed = None
    step.status = "scheduled"


def _step_started(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    step.attempt, step.lease, step.status = entry.fields["a"], entry.millis, "running"


def _step_completed(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    if entry.fields["a"] >= step.attempt:
        _end_lease(step, "completed")
        step.output = (entry.stream_id, entry.payload)
        step.status = "completed"


def _step_failed(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    run.failures.append((entry.stream_id, entry.at))
    if entry.fields["a"] < step.attempt:
        return
    _end_lease(step, "failed")
    if entry.fields["f"] != "worker-crash":
        step.failures += 1
    if entry.fields.get("t"):
        run.failed = run.failed or entry.stream_id
        step.status = "failed"


def _step_skipped(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    _end_lease(step, "skipped")
    step.attempt = max(step.attempt, entry.fields["a"])
    step.status = "skipped"


def _step_reclaimed(run: RunFold, entry: Entry) -> None:
    step = _step(run, entry)
    _end_lease(step, "reclaimed")
    step.crashes += 1


def _run_submitted(run: RunFold, entry: Entry) -> None:
    if run.submitted:
        return
    run.submitted = True
    fields = entry.fields
    if run.status == "-":
        run.status = "pending"
    run.slug = fields.get("wf", "-")
    run.priority, run.created = fields.get("p", 0), entry.at
    run.available = fields.get("v", entry.at + fields.get("dl", 0))
    run.timeout = fields.get("tm")
    if run.timeout:
        run.deadline = run.available + run.timeout
    run.input = (entry.stream_id, entry.payload) if entry.payload else None
    run.tags = tuple(fields.get("tg", ()))
    run.key_hash, run.key_elsewhere = fields.get("ih"), bool(fields.get("ix"))


def _workflow_started(run: RunFold, entry: Entry) -> None:
    if not run.submitted and run.slug == "-":  # a history without its submission, whatever came before by time
        run.slug, run.created = entry.fields.get("wf", "-"), entry.at
    run.status, run.started = "running", entry.at


def _workflow_ended(status: str) -> Any:
    def reducer(run: RunFold, entry: Entry) -> None:
        run.status, run.ended = status, entry.at

    return reducer


def _workflow_retry_started(run: RunFold, entry: Entry) -> None:
    for step in run.steps.values():
        step.failures = step.crashes = 0
    run.status, run.attempt, run.failed = "pending", entry.fields["w"], None
    if run.timeout:
        run.deadline = entry.at + run.timeout


_REDUCERS = {
    "StepScheduled": _step_scheduled,
    "StepStarted": _step_started,
    "StepCompleted": _step_completed,
    "StepFailed": _step_failed,
    "StepSkipped": _step_skipped,
    "StepReclaimed": _step_reclaimed,
    "RunSubmitted": _run_submitted,
    "WorkflowStarted": _workflow_started,
    "WorkflowCompleted": _workflow_ended("completed"),
    "WorkflowFailed": _workflow_ended("failed"),
    "WorkflowCancelled": _workflow_ended("cancelled"),
    "WorkflowRetryStarted": _workflow_retry_started,
}
