"""What must hold of the history that the engine wrote of a run, whatever happened to workers, connections and servers meanwhile.

`check_history` walks a run's stream once, in the order in which it was written, and names each event that breaks a rule. The
rules are those of the transition table (`states.py`), told from the side of the events. They bind the engine's own transitions
only: saves and imports record what a caller says, in any order, and deletions of events leave gaps, so of a run with a saved
state event (`is_told`) only the derived keys can be checked. Events that a rerun copied from its parent are taken as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from redisflow.model.derived import Entry, StepPlan, met
from redisflow.model.events import EVENT_TYPES

RULES: Final[Mapping[str, str]] = {
    "submitted": "One RunSubmitted, and it comes first.",
    "ids": "Event ids rise.",
    "one-end": "One terminal event a workflow attempt; only LogEntry follows it, until a WorkflowRetryStarted.",
    "workflow-attempts": "Workflow attempts count from 1 without gaps; each starts once, before its first step does; only a failed "
    "run is retried.",
    "attempts": "Attempts of a step count from 1 without gaps: n + 1 follows a failure, a reclaim or a retry of the run at once, "
    "and nothing else.",
    "order": "In an attempt schedule and start alternate, repeated only by a release; no start before the schedule is due; at "
    "most one end, after the start.",
    "fence": "No end, heartbeat or checkpoint comes from an execution that is not the step's current one.",
    "budget": "Failures and crashes of a step stay within its budgets in each workflow attempt.",
    "dependencies": "A step is scheduled only when what it waits for is done, and skipped by cascade only after one that it needs.",
    "ending": "A run completes when every step is completed or skipped, and fails with the step that failed first.",
    "counters": "Counters, duration and output that an end states are what the events before it give.",
}
"""Name to sentence; `redisflow verify` reports by name, and docs/reliability.md lists them."""

INERT: Final = frozenset({"LogEntry", "StepHeartbeat", "StepRetrying", "StepCheckpoint", "StepCheckpointFailed"})
_ENDS: Final = ("WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled")
_AT_WORK: Final = frozenset({"scheduled", "running", "retrying", "reclaimed", "failed"})


@dataclass(frozen=True)
class Violation:
    """One thing that is not as it must be.

    Attributes:
        run_id: the run, or "" where a key belongs to none.
        rule: short name of the broken rule: one of `RULES`, or of the derived key.
        message: what is, and what should be.
        event_ids: events that show it.
        place: key and member that stand where nothing should; None otherwise.
    """

    run_id: str
    rule: str
    message: str
    event_ids: tuple[str, ...] = ()
    place: tuple[str, str] | None = None


@dataclass
class _Step:
    """`state` is a step's status, or `retrying`, `reclaimed`, `again`: its next schedule must follow."""

    state: str = "pending"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    available: int = 0
    last: str = ""


@dataclass
class _Run:
    plan: Mapping[str, StepPlan]
    steps: dict[str, _Step] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    created: int = 0
    attempt: int = 1
    started: str = ""
    ended: str = ""
    end_type: str = ""
    first_failed: tuple[str, str] | None = None  # step and reason

    def status_of(self, name: str) -> str:
        return self.steps[name].state if name in self.steps else "pending"

    def count(self, state: str) -> int:
        return sum(step.state == state for step in self.steps.values())


def is_told(entries: Iterable[Entry]) -> bool:
    """Whether a caller told part of the history: an event other than a log line was saved or imported."""
    return any("sv" in entry.fields and entry.type != "LogEntry" for entry in entries)


def check_history(run_id: str, entries: Iterable[Entry], plan: Mapping[str, StepPlan]) -> list[Violation]:
    """Every violation of `RULES` in a run's history.

    Args:
        run_id: the run.
        entries: its whole stream, in the order of the stream.
        plan: the steps of the run's plan.
    """
    return _Check(run_id, plan).all_of(entries)


class _Check:
    """One walk over one history. An event that breaks a rule is folded nevertheless, so that one fault is told once."""

    def __init__(self, run_id: str, plan: Mapping[str, StepPlan]) -> None:
        self.run_id = run_id
        self.run = _Run(plan)
        self.found: list[Violation] = []

    def all_of(self, entries: Iterable[Entry]) -> list[Violation]:
        before = 0
        for index, entry in enumerate(entries):
            if (entry.type == "RunSubmitted") != (index == 0):
                self.broken("submitted", entry, f"{entry.type} is event {index + 1}")
            if entry.number <= before:
                self.broken("ids", entry, f"event {entry.number} follows {before}")
            before = entry.number
            self.event(entry)
        for name, step in self.run.steps.items():
            if step.state in ("retrying", "reclaimed", "again"):
                self.note("attempts", f"step {name} is to be scheduled again, and was not", step.last)
        return self.found

    def note(self, rule: str, message: str, *event_ids: str) -> None:
        self.found.append(Violation(self.run_id, rule, message, tuple(i for i in event_ids if i)))

    def broken(self, rule: str, entry: Entry, message: str, *others: str) -> None:
        self.note(rule, message, *others, str(entry.number))

    def require(self, holds: bool, rule: str, entry: Entry, message: str, *others: str) -> None:
        if not holds:
            self.broken(rule, entry, message, *others)

    def event(self, entry: Entry) -> None:
        run = self.run
        if run.ended and entry.type in EVENT_TYPES and entry.type not in ("LogEntry", "WorkflowRetryStarted"):
            self.broken(
                "one-end", entry, f"{entry.type} comes after the end of workflow attempt {run.attempt}", run.ended
            )
        if entry.type in _WORKFLOW:
            _WORKFLOW[entry.type](self, entry)
        elif entry.type in _STEP:
            step = run.steps.setdefault(entry.step, _Step())
            if "ts" in entry.fields:  # copied by a rerun from its parent
                _take_over(run, step, entry)
            else:
                _STEP[entry.type](self, entry, step)
            if entry.type not in INERT:
                step.last = str(entry.number)

    # --- steps ----------------------------------------------------------------------------------------------------------

    def scheduled(self, entry: Entry, step: _Step) -> None:
        name, attempt, state = entry.step, entry.fields["a"], step.state
        if state in ("scheduled", "completed", "skipped", "failed"):
            self.broken("order", entry, f"step {name} is scheduled while it is {state}", step.last)
        else:
            wanted = step.attempt + (state != "running")  # a release keeps its attempt
            self.require(
                attempt == wanted, "attempts", entry, f"attempt {attempt} of step {name}, expected {wanted}", step.last
            )
        planned = self.run.plan.get(name)
        if planned is not None:
            if state == "reclaimed" and step.crashes > planned.crashes:
                self.broken(
                    "budget",
                    entry,
                    f"step {name} runs again after {step.crashes} crashes, of {planned.crashes}",
                    step.last,
                )
            for needed, kind in planned.dependencies.items():
                there = self.run.status_of(needed)
                self.require(
                    met(there, kind), "dependencies", entry, f"step {name} waits for {needed}, which is {there}"
                )
        step.state, step.attempt = "scheduled", attempt
        step.available = entry.fields.get("v", entry.at + entry.fields.get("dl", 0))

    def started(self, entry: Entry, step: _Step) -> None:
        attempt = entry.fields["a"]
        self.require(
            bool(self.run.started), "workflow-attempts", entry, f"step {entry.step} starts before the run does"
        )
        fits = step.state == "scheduled" and attempt == step.attempt
        now = f"attempt {step.attempt} is {step.state}"
        self.require(fits, "order", entry, f"attempt {attempt} of step {entry.step} starts while {now}", step.last)
        self.require(
            entry.at >= step.available, "order", entry, f"step {entry.step} starts before it is due", step.last
        )
        step.state, step.attempt = "running", attempt

    def current(self, entry: Entry, step: _Step, state: str = "running") -> bool:
        """Whether the event is of the execution that the step is in; a violation where it is not."""
        fits = step.state == state and entry.fields["a"] == step.attempt
        now = f"attempt {step.attempt} is {step.state}"
        self.require(
            fits,
            "fence",
            entry,
            f"{entry.type} of attempt {entry.fields['a']} of step {entry.step}, while {now}",
            step.last,
        )
        return fits or bool(entry.fields["a"] >= step.attempt)

    def completed(self, entry: Entry, step: _Step) -> None:
        if self.current(entry, step):
            step.state = "completed"
            if entry.fields.get("x"):
                self.run.outputs[entry.step] = entry.payload

    def failed(self, entry: Entry, step: _Step) -> None:
        crash, terminal = entry.fields["f"] == "worker-crash", bool(entry.fields.get("t"))
        if not self.current(entry, step, "reclaimed" if crash else "running"):
            return
        planned = self.run.plan.get(entry.step)
        step.failures += not crash
        if planned is not None and crash:
            spent = f"after {step.crashes} crashes, of {planned.crashes}"
            self.require(step.crashes > planned.crashes, "budget", entry, f"step {entry.step} fails {spent}", step.last)
        elif planned is not None:
            left = planned.attempts - step.failures
            self.require(
                left >= (not terminal), "budget", entry, f"failure {step.failures} of {planned.attempts} attempts"
            )
        step.state = "failed" if terminal else "retrying"
        if terminal and self.run.first_failed is None:
            self.run.first_failed = (entry.step, entry.fields["f"])

    def retrying(self, entry: Entry, step: _Step) -> None:
        fits = step.state == "retrying" and entry.fields["a"] == step.attempt and entry.fields["na"] == step.attempt + 1
        self.require(fits, "order", entry, f"StepRetrying of step {entry.step} does not follow its failure", step.last)

    def skipped(self, entry: Entry, step: _Step) -> None:
        if entry.fields["k"] == "cascade":
            cause, planned = entry.fields.get("cf", ""), self.run.plan.get(entry.step)
            needed = planned is None or planned.dependencies.get(cause) == "r"
            fits = step.state == "pending" and needed and self.run.status_of(cause) == "skipped"
            self.require(fits, "dependencies", entry, f"step {entry.step} is skipped because of {cause!r}", step.last)
        else:
            self.current(entry, step)
        step.state, step.attempt = "skipped", max(step.attempt, entry.fields["a"])

    def reclaimed(self, entry: Entry, step: _Step) -> None:
        self.current(entry, step)
        step.crashes += 1
        step.state = "reclaimed"

    # --- the run --------------------------------------------------------------------------------------------------------

    def submitted(self, entry: Entry) -> None:
        self.run.created = self.run.created or entry.at

    def workflow_started(self, entry: Entry) -> None:
        run = self.run
        fits = not run.started and entry.fields["w"] == run.attempt
        self.require(
            fits, "workflow-attempts", entry, f"attempt {entry.fields['w']} starts in {run.attempt}", run.started
        )
        run.started = str(entry.number)

    def workflow_retried(self, entry: Entry) -> None:
        run, number = self.run, entry.fields["w"]
        fits = run.end_type == "WorkflowFailed" and number == run.attempt + 1 == entry.fields["pw"] + 1
        after = f"after attempt {run.attempt}, {run.end_type or 'which has not ended'}"
        self.require(fits, "workflow-attempts", entry, f"attempt {number} follows {after}", run.ended)
        run.attempt, run.started, run.ended, run.end_type, run.first_failed = number, "", "", "", None
        for step in run.steps.values():
            step.failures = step.crashes = 0
            if step.state in _AT_WORK:
                step.state = "again"

    def workflow_ended(self, entry: Entry) -> None:
        run, fields = self.run, entry.fields
        self.require(
            fields["w"] == run.attempt, "workflow-attempts", entry, f"attempt {fields['w']} ends in {run.attempt}"
        )
        duration = max(0, entry.at - run.created)
        self.require(fields["d"] == duration, "counters", entry, f"duration {fields['d']}, expected {duration}")
        if entry.type == "WorkflowCompleted":
            self.workflow_completed(entry)
        else:
            done = run.count("completed")
            self.require(fields["c"] == done, "counters", entry, f"{fields['c']} completed steps, expected {done}")
        if entry.type == "WorkflowFailed" and fields["f"] in ("step-failed", "worker-crash"):
            step, reason = run.first_failed or (None, "")
            wanted = ("worker-crash" if reason == "worker-crash" else "step-failed", step)
            stated = (fields["f"], fields.get("s"))
            self.require(
                step is not None and stated == wanted, "ending", entry, f"fails with {stated}, expected {wanted}"
            )
        run.ended, run.end_type = str(entry.number), entry.type

    def workflow_completed(self, entry: Entry) -> None:
        run, fields = self.run, entry.fields
        left = [name for name in {**run.plan, **run.steps} if run.status_of(name) not in ("completed", "skipped")]
        self.require(not left, "ending", entry, f"completed with unfinished steps: {', '.join(sorted(left)[:5])}")
        total = len(run.plan) or max(1, run.count("completed"))
        self.require(fields["n"] == total, "counters", entry, f"{fields['n']} steps, expected {total}")
        if entry.payload:
            wanted = {name: json.loads(text) for name, text in run.outputs.items()}
            self.require(
                json.loads(entry.payload) == wanted, "counters", entry, "the output is not that of the exported steps"
            )


def _take_over(run: _Run, step: _Step, entry: Entry) -> None:
    """Fold a copied event without a check: its parent's history is checked there."""
    states = {
        "StepScheduled": "scheduled", "StepStarted": "running", "StepCompleted": "completed", "StepSkipped": "skipped",
    }  # fmt: skip
    step.state = states.get(entry.type, step.state)
    step.attempt = entry.fields.get("a", step.attempt)
    if entry.type == "StepCompleted" and entry.fields.get("x"):
        run.outputs[entry.step] = entry.payload


_STEP: Final[Mapping[str, Callable[[_Check, Entry, _Step], Any]]] = {
    "StepScheduled": _Check.scheduled,
    "StepStarted": _Check.started,
    "StepCompleted": _Check.completed,
    "StepFailed": _Check.failed,
    "StepRetrying": _Check.retrying,
    "StepSkipped": _Check.skipped,
    "StepReclaimed": _Check.reclaimed,
    "StepHeartbeat": _Check.current,
    "StepCheckpoint": _Check.current,
    "StepCheckpointFailed": _Check.current,
}
_WORKFLOW: Final[Mapping[str, Callable[[_Check, Entry], Any]]] = {
    "RunSubmitted": _Check.submitted,
    "WorkflowStarted": _Check.workflow_started,
    "WorkflowRetryStarted": _Check.workflow_retried,
    **dict.fromkeys(_ENDS, _Check.workflow_ended),
}
