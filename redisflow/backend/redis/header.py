"""The packed fields of a run's hash, as lua/lib/run.lua writes them with struct.

`h` is the run: enough to decide any transition without reading its stream. `s:<step>` is one step. Times are µs; 0 stands for none.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

STATUSES = {"p": "pending", "r": "running", "c": "completed", "f": "failed", "x": "cancelled"}
STEP_STATUSES = {"p": "pending", "s": "scheduled", "r": "running", "c": "completed", "f": "failed", "k": "skipped"}
_HEADER = struct.Struct("<ccIbHIII16sddd")
MALFORMED = (struct.error, ValueError, OverflowError)
"""What parsing raises of bytes that no script wrote."""
_STEP = struct.Struct("<cIbHHIddc")


class Header(NamedTuple):
    """A run's header.

    Attributes:
        failed: a step failed for good; field `f` names the event.
        plan: plan number, 0 for a run without a plan.
        open: steps of the plan (and others seen) that have not ended.
        active: steps that are scheduled or running.
        done: completed steps.
    """

    status: str
    failed: bool
    plan: int
    priority: int
    attempt: int
    open: int
    active: int
    done: int
    created: int
    started: int
    ended: int
    timeout: int

    @property
    def status_word(self) -> str:
        """The status as the wire form names it."""
        return STATUSES[self.status]


class StepField(NamedTuple):
    """A step's field.

    Attributes:
        unmet: dependencies that are not done.
        at: lease of the current execution; of a scheduled step its `availableAt`; else 0.
        ended, kind: the lease that ended last, and how: c, f, k as the statuses, r reclaimed, l released, - none.
    """

    status: str
    attempt: int
    level: int
    failures: int
    crashes: int
    unmet: int
    at: int
    ended: int
    kind: str

    @property
    def lease(self) -> int:
        """Of the current execution, 0 where none runs."""
        return 0 if self.status == "s" else self.at


def parse_header(raw: bytes) -> Header:
    """The `h` field."""
    status, failed, plan, priority, attempt, waiting, active, done, *times = _HEADER.unpack(raw)
    return Header(status.decode(), failed == b"f", plan, priority, attempt, waiting, active, done, *map(int, times))


def parse_step(raw: bytes) -> StepField:
    """An `s:<step>` field."""
    status, attempt, level, failures, crashes, unmet, at, ended, kind = _STEP.unpack(raw)
    return StepField(status.decode(), attempt, level, failures, crashes, unmet, int(at), int(ended), kind.decode())
