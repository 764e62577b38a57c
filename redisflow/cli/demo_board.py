"""What `demo` shows: a row for each step, folded from the run's events as they come.

On a terminal the table is redrawn in place, and what is said scrolls above it; elsewhere each change of a
step is a line.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from redisflow.cli.text import console, now_us, plain, status_text, table
from redisflow.model.events import BaseEvent
from redisflow.settings import format_duration

_STATUS = {
    "StepScheduled": "scheduled", "StepStarted": "running", "StepCompleted": "completed",
    "StepFailed": "failed", "StepSkipped": "skipped",
}  # fmt: skip


@dataclass
class Row:
    """One step as it is now; times in µs since the epoch."""

    status: str = "pending"
    attempt: int = 1
    worker: str = ""
    started: int | None = None
    ended: int | None = None

    @property
    def took(self) -> str:
        """How long the attempt has run, or ran."""
        if self.started is None or self.status not in ("running", "completed", "failed"):
            return ""
        return format_duration(max(0, (self.ended or now_us()) - self.started))


class Board:
    """The steps of one run.

    Args:
        steps: ids in the order of the plan.
    """

    def __init__(self, steps: Iterable[str]) -> None:
        self.rows = {step: Row() for step in steps}
        self.names: dict[str, str] = {}
        self._out = console()
        self._begun = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._out.is_terminal:
            self._live = Live(console=self._out, get_renderable=self._table, refresh_per_second=8)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """Print a line with the time since the start."""
        line = Text(f"{time.monotonic() - self._begun:6.1f}s  ", "dim").append_text(plain(text, style))
        self._out.print(line, soft_wrap=True)

    def apply(self, event: BaseEvent) -> None:
        """Take an event of the run into the rows; those that change no step are passed by."""
        wire: Mapping[str, Any] = event.to_wire()
        status = _STATUS.get(str(wire["type"]))
        if status is None or "stepId" not in wire:
            return
        step, at = str(wire["stepId"]), int(wire["timestampUs"])
        row = self.rows.setdefault(step, Row())
        row.status, row.attempt = status, wire["attemptNumber"]
        if status == "running":
            row.worker, row.started, row.ended = self.name_of(wire["workerId"]), at, None
        elif status != "scheduled":
            row.ended = at
        if self._live is None and status in ("running", "completed", "failed"):
            again = f"  attempt {row.attempt}" if row.attempt > 1 else ""
            took = f"  {row.took}" if row.ended else ""
            self.say(f"{step:<20} {status:<9} {row.worker}{again}{took}")

    def name_of(self, worker_id: str) -> str:
        """A worker's name for people."""
        return next((name for part, name in self.names.items() if part in worker_id), worker_id)

    def _table(self) -> Table:
        rows = [
            (plain(step, "bold"), status_text(row.status),
             plain(row.attempt, "yellow" if row.attempt > 1 else ""), row.worker, row.took)
            for step, row in self.rows.items()
        ]  # fmt: skip
        return table(("step", "state", ">attempt", "worker", ">took"), rows)
