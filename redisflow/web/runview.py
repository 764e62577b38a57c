"""What the page of a run shows, from its events alone: now, or as it was at one of them.

Pure: wire events, the plan's edges and a time come in. Everything is a fold (`model/projections.py`, `model/timeline.py`) over
the events up to the chosen one, so a look into the past is the same code over fewer events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redisflow.model.events import (
    AnyEvent,
    BaseStepEvent,
    LogEntry,
    StepCompleted,
    StepFailed,
    StepSkipped,
    parse_event,
)
from redisflow.model.projections import project_run_state, project_step_state
from redisflow.model.states import RunState, StepState
from redisflow.model.timeline import KINDS, Span, run_spans
from redisflow.web.graph import Drawing, draw

MOST_ROWS: Final = 300
MOST_STEPS: Final = 120
MOST_LOGS: Final = 300
MOST_EVENTS: Final = 200
TERMINAL: Final = frozenset({"WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled"})


@dataclass(frozen=True)
class Block:
    """A stretch of the timeline: its kind, where it stands in thousandths of the axis, and its time in µs."""

    kind: str
    x: float
    width: float
    duration_us: int


@dataclass(frozen=True)
class Row:
    """An attempt on the timeline; `totals` are the µs of each kind, in the order of `KINDS`."""

    span: Span
    blocks: tuple[Block, ...]
    totals: tuple[int, ...]


@dataclass(frozen=True)
class StepView:
    """A step: its state if it has one, and what its last end told."""

    id: str
    status: str
    state: StepState | None
    needs: tuple[str, ...]
    skip_reason: str | None
    usage: tuple[tuple[int, float, float], ...]
    """Attempt, peak memory in bytes and CPU in µs, of each attempt that told."""


@dataclass(frozen=True)
class RunView:
    """The whole page."""

    run: RunState
    steps: tuple[StepView, ...]
    hidden_steps: int
    drawing: Drawing | None
    rows: tuple[Row, ...]
    hidden_rows: int
    start_us: int
    end_us: int
    output: str | None
    error: Any
    reason: str | None
    version: str
    parent: tuple[str, str] | None
    at: str | None
    last_id: str

    @property
    def is_live(self) -> bool:
        """Whether more is to come."""
        return self.run.status in ("pending", "running")

    @property
    def statuses(self) -> dict[str, str]:
        """Status of each step."""
        return {step.id: step.status for step in self.steps}


def view_run(
    wires: Sequence[Mapping[str, Any]], edges: Mapping[str, Sequence[str]], *, now: int, at: str | None = None,
    known: RunState | None = None,
) -> RunView | None:  # fmt: skip
    """The page of a run; None where there is no event to show.

    Args:
        wires: its events in wire form.
        edges: what each step of its plan waits for.
        now: µs since the epoch.
        at: id of the event after which the run is shown; None: now.
        known: its state, for a run without RunSubmitted.
    """
    chosen = [wire for wire in wires if at is None or int(wire["eventId"]) <= int(at)]
    chosen.sort(key=lambda wire: (wire["timestampUs"], int(wire["eventId"])))
    events = [parse_event(wire) for wire in chosen]
    if not events:
        return None
    run = project_run_state(events) if any(event.type == "RunSubmitted" for event in events) else known
    if run is None:
        return None
    last = events[-1].timestamp_us
    until = last if at is not None or run.status not in ("pending", "running") else max(now, last)
    steps = _steps(events, edges)
    spans = run_spans(events, now=until)
    start = min([run.created_at, *(s.start_us for span in spans for s in span.stretches)])
    end = max([start + 1, *(s.end_us for span in spans for s in span.stretches)])
    drawing = draw({step.id: step.needs for step in steps})
    return RunView(
        run=run, steps=tuple(steps[:MOST_STEPS]), hidden_steps=max(0, len(steps) - MOST_STEPS), drawing=drawing,
        rows=tuple(_row(span, start, end) for span in spans[:MOST_ROWS]), hidden_rows=max(0, len(spans) - MOST_ROWS),
        start_us=start, end_us=end, at=at, last_id=str(max(int(wire["eventId"]) for wire in chosen)), **_ending(chosen),
    )  # fmt: skip


def _ending(wires: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the run's own events say beside its state."""
    found: dict[str, Any] = {"output": None, "error": None, "reason": None, "version": "unknown", "parent": None}
    for wire in wires:
        kind = wire["type"]
        if kind == "RunSubmitted":
            found["version"] = wire.get("versionId", "unknown")
        elif kind == "WorkflowRerunFromStep":
            found["parent"] = (wire["parentRunId"], wire["rerunFromStepId"], len(wire["rerunStepIds"]))
        elif kind in TERMINAL:
            found.update(output=wire.get("output"), error=wire.get("error"), reason=wire.get("reason"))
        elif kind == "WorkflowRetryStarted":
            found.update(output=None, error=None, reason=None)
    return found


def _steps(events: Sequence[AnyEvent], edges: Mapping[str, Sequence[str]]) -> list[StepView]:
    by_step: dict[str, list[AnyEvent]] = {step: [] for step in edges}
    for event in events:
        if isinstance(event, BaseStepEvent) and not isinstance(event, LogEntry):
            by_step.setdefault(event.step_id, []).append(event)
    found = []
    for step, history in by_step.items():
        state = project_step_state(history) if history else None
        needs = tuple(edges.get(step) or (state.dependencies if state else ()))
        skips = [event.reason for event in history if isinstance(event, StepSkipped)]
        usage = tuple(
            (event.attempt_number, event.resource_usage.peak_memory_bytes, event.resource_usage.cpu_time_total_us)
            for event in history if isinstance(event, StepCompleted | StepFailed) and event.resource_usage is not None
        )  # fmt: skip
        status = state.status if state else "pending"
        found.append(StepView(step, status, state, needs, skips[-1] if skips else None, usage))
    return found


def _row(span: Span, start: int, end: int) -> Row:
    scale = 1000 / (end - start)
    blocks = tuple(
        Block(s.kind, round((s.start_us - start) * scale, 2), max(0.8, round(s.duration_us * scale, 2)), s.duration_us)
        for s in span.stretches
    )
    return Row(span, blocks, tuple(span.total(kind) for kind in KINDS))


def logs_of(wires: Sequence[Mapping[str, Any]], at: str | None = None) -> tuple[list[Mapping[str, Any]], int]:
    """The newest lines that the steps wrote, oldest first, and how many older ones are left out."""
    lines = [wire for wire in wires if wire["type"] == "LogEntry" and (at is None or int(wire["eventId"]) <= int(at))]
    return lines[-MOST_LOGS:], max(0, len(lines) - MOST_LOGS)


def events_of(wires: Sequence[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The newest events but log lines, oldest first, and how many older ones are left out."""
    told = [wire for wire in wires if wire["type"] != "LogEntry"]
    return told[-MOST_EVENTS:], max(0, len(told) - MOST_EVENTS)


_TOLD: Final = (
    ("attemptNumber", "attempt"), ("workerId", "worker"), ("reason", "reason"), ("failureReason", "reason"),
    ("originalWorkerId", "from"), ("reclaimedBy", "by"), ("name", "name"), ("failedStep", "step"), ("user", "user"),
    ("action", "action"),
)  # fmt: skip


def told(wire: Mapping[str, Any]) -> str:
    """What an event says, in a line."""
    parts = [f"{label} {wire[name]}" for name, label in _TOLD if wire.get(name) not in (None, "")]
    error = wire.get("error")
    if isinstance(error, Mapping):
        parts.append(f"{error.get('name') or 'Error'}: {error.get('message')}")
    return " · ".join(parts)
