"""The rules of histories in words, and what it is called when one is broken; `invariants.py` checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

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
