"""What goes into the backend and comes out of it, beside events and states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redisflow.backend.checks import check_integer, check_time, check_words
from redisflow.backend.replies import Reply
from redisflow.model.errors import InvalidArgument
from redisflow.model.text import UNSAFE

MAX_TAG = 64
MAX_KEY = 512
MOST_DELAY = 10 * 365 * 86_400_000_000
"""Ten years, in µs."""


@dataclass(slots=True)  # not frozen: that doubles the time to make one
class Submission:
    """One run to submit.

    Attributes:
        input: JSON text of the input, or None.
        run_id: id of its own; by default one is made.
        available_at_us: absolute time from which it may run (µs since the epoch).
        delay_us: or a delay from the server's now.
        priority: -100 to 100, higher is more urgent.
        timeout_us: time from `availableAt` within which the run must end; None: the workflow's.
        idempotency_key: a second submission with the same key gives the first run.
        tags: words to find the run by.
        metadata: JSON-able values kept with the run.
    """

    input: str | None = None
    run_id: str | None = None
    available_at_us: int | None = None
    delay_us: int | None = None
    priority: int = 0
    timeout_us: int | None = None
    idempotency_key: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None

    def check(self) -> None:
        """Refuse what could not be stored.

        Raises:
            InvalidArgument: names the argument, its value and what is allowed.
        """
        check_integer("priority", self.priority, -100, 100)
        if self.delay_us is not None:
            check_integer("delay", self.delay_us, 0, MOST_DELAY, allowed="from 0 to 10 years")
        if self.available_at_us is not None:
            check_time("available_at", self.available_at_us)
        if self.timeout_us is not None:
            check_integer("timeout", self.timeout_us, 1, allowed="more than 0")
        key = self.idempotency_key
        if key is not None and (not isinstance(key, str) or not 0 < len(key) <= MAX_KEY):
            raise InvalidArgument("idempotency_key", key, f"text of 1 to {MAX_KEY} characters")
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise InvalidArgument("metadata", self.metadata, "an object of JSON-able values")
        for tag in check_words("tags", self.tags) if self.tags != () else ():
            if len(tag) > MAX_TAG or _no_word(tag):
                raise InvalidArgument(
                    "tags",
                    tag,
                    f"words of 1 to {MAX_TAG} characters without spaces, commas, braces or control characters",
                )


def _no_word(tag: str) -> bool:
    """Whether it would break a key, a list of tags or a terminal."""
    return UNSAFE.search(tag) is not None or any(c.isspace() or c in ",{}" for c in tag)


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """Where a submission went: `is_new` is False where its idempotency key was known."""

    run_id: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class CancelResult:
    """Whether the call cancelled the run, and the status after it."""

    cancelled: bool
    status: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that this caller now runs.

    Attributes:
        lease: fences the outcome; µs time of the claim.
        input: JSON text of the run's input, or None.
        outputs: JSON text of each dependency that completed.
    """

    run_id: str
    step_id: str
    attempt_number: int
    lease: int
    input: str | None
    outputs: Mapping[str, str]
    plan_number: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """Answer to an outcome: what the call did, and for a conflict how the lease had ended before."""

    reply: Reply
    detail: str | None = None

    @property
    def recorded(self) -> bool:
        """The outcome stands in the run's history (now, or since an earlier call)."""
        return self.reply in (Reply.OK, Reply.ALREADY)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """A step taken back from its worker."""

    workflow_slug: str
    run_id: str
    step_id: str
    attempt_number: int
    worker_id: str


@dataclass(frozen=True, slots=True)
class ReclaimRound:
    """One round of the reclaimer over a partition; `grace_us` is left of the pause after an outage."""

    reclaimed: tuple[Reclaimed, ...]
    more: bool
    grace_us: int


@dataclass(frozen=True, slots=True)
class SweepRound:
    """One round over deadlines and retention: runs timed out, runs deleted, and µs to the next deadline if known."""

    timed_out: tuple[str, ...]
    deleted: tuple[str, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class PlanInfo:
    """What a plan number stands for."""

    slug: str
    version: str
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
