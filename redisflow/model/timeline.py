"""Where the time of a run went: each attempt cut into stretches that follow each other without a gap.

A step waits for its **dependencies** until it is scheduled, then for its **delay** (of the run, or before a retry), then for a
**worker**, and then it **runs**. Between the end of a failed run and its retry it is **stopped**. The stretches of a step begin
at the submission and end at its last end, and each begins where the one before it ended, so they add up to the whole to the µs.

Pure: events in the order of their times come in; `now` closes what is still open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from redisflow.model.events import (
    BaseEvent,
    BaseStepEvent,
    RunSubmitted,
    StepCompleted,
    StepFailed,
    StepReclaimed,
    StepScheduled,
    StepSkipped,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowRetryStarted,
)

Kind = Literal["dependencies", "delay", "worker", "run", "stopped"]
KINDS: tuple[Kind, ...] = ("dependencies", "delay", "worker", "run", "stopped")
_RUN_ENDS = (WorkflowCompleted, WorkflowFailed, WorkflowCancelled)


class Stretch(NamedTuple):
    """A part of an attempt's time, in µs since the epoch."""

    kind: Kind
    start_us: int
    end_us: int

    @property
    def duration_us(self) -> int:
        """How long it took."""
        return self.end_us - self.start_us


@dataclass(frozen=True)
class Span:
    """One attempt of a step, with the waits before it.

    Attributes:
        outcome: completed, failed, skipped, reclaimed, released, stopped (its run ended), running or waiting.
        stretches: its time, in order; none is empty.
    """

    step_id: str
    attempt_number: int
    outcome: str
    stretches: tuple[Stretch, ...]
    worker_id: str | None = None

    def total(self, kind: Kind) -> int:
        """Time of one kind, µs."""
        return sum(stretch.duration_us for stretch in self.stretches if stretch.kind == kind)

    @property
    def duration_us(self) -> int:
        """All of its time, µs."""
        return sum(stretch.duration_us for stretch in self.stretches)


@dataclass
class _Track:
    """A step on its way: `mark` is the time up to which everything is accounted for."""

    step_id: str
    mark: int
    attempt: int = 1
    available: int | None = None
    worker: str | None = None
    running: bool = False
    done: bool = False
    stretches: list[Stretch] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def advance(self, kind: Kind, to: int) -> None:
        if to > self.mark:
            self.stretches.append(Stretch(kind, self.mark, to))
            self.mark = to

    def wait(self, to: int) -> None:
        """A scheduled step waits for its time, then for a worker; one that is not, for its dependencies."""
        if self.available is None:
            self.advance("dependencies", to)
        else:
            self.advance("delay", min(self.available, to))
            self.advance("worker", to)

    def close(self, outcome: str) -> None:
        self.spans.append(Span(self.step_id, self.attempt, outcome, tuple(self.stretches), self.worker))
        self.stretches, self.available, self.worker, self.running = [], None, None, False

    def scheduled(self, event: StepScheduled) -> None:
        if self.running:
            self.advance("run", event.timestamp_us)
            self.close("released")
        elif self.available is not None:
            self.wait(event.timestamp_us)
        elif not self.spans:
            self.advance("dependencies", event.timestamp_us)
        self.attempt, self.available, self.done = event.attempt_number, event.available_at_us, False

    def started(self, event: StepStarted) -> None:
        self.wait(event.timestamp_us)
        self.attempt, self.worker, self.running = event.attempt_number, event.worker_id, True

    def ended(self, at: int, attempt: int, outcome: str) -> None:
        if self.running and attempt >= self.attempt:
            self.advance("run", at)
            self.close(outcome)
            self.done = outcome in ("completed", "skipped")
        elif outcome == "skipped" and not self.running:
            self.wait(at)
            self.close(outcome)
            self.done = True

    def stopped(self, at: int) -> None:
        """The run has ended; what was under way ends with it."""
        if self.running:
            self.advance("run", at)
            self.close("stopped")
        elif self.available is not None:
            self.wait(at)
            self.close("stopped")
        elif not self.spans:
            self.advance("dependencies", at)

    def open_until(self, now: int) -> None:
        """The run goes on: what is under way is shown until now."""
        if self.running:
            self.advance("run", now)
            self.close("running")
        elif self.available is not None:
            self.wait(now)
            self.close("waiting")


_OUTCOMES: dict[type[BaseEvent], str] = {
    StepCompleted: "completed", StepFailed: "failed", StepSkipped: "skipped", StepReclaimed: "reclaimed",
}  # fmt: skip


def run_spans(events: Iterable[BaseEvent], *, now: int) -> list[Span]:
    """Every attempt of a run's steps, steps in order of their first event.

    Args:
        events: of one run, by time.
        now: µs since the epoch, up to which what is still open has taken.
    """
    history = list(events)
    origin = next((event.timestamp_us for event in history if isinstance(event, RunSubmitted)), None)
    tracks: dict[str, _Track] = {}
    live = True
    for event in history:
        at = event.timestamp_us
        if isinstance(event, BaseStepEvent):
            # steps that a rerun has kept come with their times, from before its submission
            track = tracks.setdefault(event.step_id, _Track(event.step_id, min(at if origin is None else origin, at)))
            _step_event(track, event)
        elif isinstance(event, _RUN_ENDS):
            live = False
            for track in tracks.values():
                track.stopped(at)
        elif isinstance(event, WorkflowRetryStarted):
            live = True
            for track in tracks.values():
                if not track.done:
                    track.advance("stopped", at)
    if live:
        for track in tracks.values():
            track.open_until(now)
    return [span for track in tracks.values() for span in track.spans]


def _step_event(track: _Track, event: BaseStepEvent) -> None:
    if isinstance(event, StepScheduled):
        track.scheduled(event)
    elif isinstance(event, StepStarted):
        track.started(event)
    elif isinstance(event, StepCompleted | StepFailed | StepSkipped | StepReclaimed):
        track.ended(event.timestamp_us, event.attempt_number, _OUTCOMES[type(event)])
