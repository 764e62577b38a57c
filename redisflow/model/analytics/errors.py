"""Failures of steps: by reason and message, and in groups of equal fingerprints.

Groups go by the hashes that were stored with each failure; nothing is hashed anew here.
"""

from __future__ import annotations

from typing import ClassVar

from redisflow.model.analytics.results import (
    TOP,
    CommonError,
    ErrorAnalysis,
    ErrorDetail,
    ErrorGroup,
    ErrorOccurrence,
    ErrorsList,
    ReasonShare,
)
from redisflow.model.analytics.shares import percent
from redisflow.model.analytics.window import EventTypes
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import BaseEvent, StepFailed, StepFailureReason
from redisflow.model.fingerprints import GROUPINGS, UNNAMED, Grouping, compose, parse_fingerprint


def _occurrence(event: StepFailed) -> ErrorOccurrence:
    return ErrorOccurrence(
        workflow_slug=event.workflow_slug,
        run_id=event.run_id,
        step_id=event.step_id,
        attempt_number=event.attempt_number,
        timestamp_us=event.timestamp_us,
    )


class ErrorAnalysisCounter:
    """Every failure, terminal or not, by reason and by message alone."""

    counted: ClassVar[EventTypes] = (StepFailed,)

    def __init__(self) -> None:
        self._reasons: dict[StepFailureReason, int] = {}
        self._messages: dict[str, tuple[StepFailureReason, list[ErrorOccurrence]]] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepFailed):
            reason = event.failure_reason
            self._reasons[reason] = self._reasons.get(reason, 0) + 1
            _, occurrences = self._messages.setdefault(event.error.message, (reason, []))
            occurrences.append(_occurrence(event))

    def result(self, workflow_slug: str | None = None, step_id: str | None = None) -> ErrorAnalysis:
        """The figures so far; the most common messages come first, then first seen first."""
        total = sum(self._reasons.values())
        ranked = sorted(self._messages.items(), key=lambda item: -len(item[1][1]))[:TOP]
        times = [seen.timestamp_us for _, group in self._messages.values() for seen in group]
        return ErrorAnalysis(
            workflow_slug=workflow_slug,
            step_id=step_id,
            total_failures=total,
            unique_errors=len(self._messages),
            breakdown_by_reason=tuple(
                ReasonShare(failure_reason=reason, count=count, percentage=percent(count, total))
                for reason, count in self._reasons.items()
            ),
            most_common_errors=tuple(
                CommonError(
                    message=message,
                    count=len(group),
                    failure_reason=reason,
                    last_occurrence=max(seen.timestamp_us for seen in group),
                    occurrences=tuple(group),
                )
                for message, (reason, group) in ranked
            ),
            first_failure=min(times, default=None),
            last_failure=max(times, default=None),
        )


class _Group:
    """Failures of one fingerprint, in a few fields."""

    __slots__ = ("count", "first", "first_seen", "last_seen", "runs")

    def __init__(self, first: StepFailed) -> None:
        self.first = first
        self.count = 0
        self.runs: set[str] = set()
        self.first_seen = self.last_seen = first.timestamp_us

    def add(self, event: StepFailed) -> None:
        self.count += 1
        self.runs.add(event.run_id)
        self.first_seen = min(self.first_seen, event.timestamp_us)
        self.last_seen = max(self.last_seen, event.timestamp_us)


class ErrorsListCounter:
    """Failures grouped by the hashes stored in them.

    Raises:
        InvalidArgument: the grouping is none of ours.
    """

    counted: ClassVar[EventTypes] = (StepFailed,)

    def __init__(self, grouping: Grouping = "exact") -> None:
        self._grouping = _checked_grouping(grouping)
        self._groups: dict[str, _Group] = {}

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if isinstance(event, StepFailed):
            key = compose(event.error_fingerprints, self._grouping)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group(event)
            group.add(event)

    def result(self, limit: int = 50, offset: int = 0) -> ErrorsList:
        """A page of groups: most failures first, then first seen first."""
        ranked = sorted(self._groups.items(), key=lambda item: -item[1].count)
        page = tuple(
            ErrorGroup(
                fingerprint=key,
                error_message=group.first.error.message,
                error_name=group.first.error.name or UNNAMED,
                sample_stack=group.first.error.stack or "",
                count=group.count,
                affected_runs=len(group.runs),
                first_seen=group.first_seen,
                last_seen=group.last_seen,
            )
            for key, group in ranked[offset : offset + limit]
        )
        return ErrorsList(errors=page, total=len(ranked))


class ErrorDetailCounter:
    """The failures of one fingerprint.

    Raises:
        InvalidArgument: the fingerprint has not three parts, or the grouping is none of ours.
    """

    counted: ClassVar[EventTypes] = (StepFailed,)

    def __init__(self, fingerprint: str, grouping: Grouping = "exact") -> None:
        parse_fingerprint(fingerprint)
        self._fingerprint = fingerprint
        self._grouping = _checked_grouping(grouping)
        self._seen: list[tuple[int, int, ErrorOccurrence]] = []
        self._newest: StepFailed | None = None

    def add(self, event: BaseEvent) -> None:
        """Count an event."""
        if not isinstance(event, StepFailed):
            return
        if compose(event.error_fingerprints, self._grouping) != self._fingerprint:
            return
        self._seen.append((event.timestamp_us, int(event.event_id), _occurrence(event)))
        if self._newest is None or _age(event) >= _age(self._newest):
            self._newest = event

    def result(self, limit: int = 100, offset: int = 0) -> ErrorDetail:
        """The group with a page of its occurrences; zeros and empty strings where nothing matched."""
        newest_first = sorted(self._seen, key=lambda seen: seen[:2], reverse=True)
        occurrences = tuple(occurrence for _, _, occurrence in newest_first)
        error = self._newest.error if self._newest else None
        return ErrorDetail(
            fingerprint=self._fingerprint,
            error_message=error.message if error else "",
            error_name=(error.name or UNNAMED) if error else "",
            sample_stack=(error.stack or "") if error else "",
            total_count=len(occurrences),
            affected_runs=len({occurrence.run_id for occurrence in occurrences}),
            first_seen=occurrences[-1].timestamp_us if occurrences else 0,
            last_seen=occurrences[0].timestamp_us if occurrences else 0,
            occurrences=occurrences[offset : offset + limit],
            total=len(occurrences),
        )


def _age(event: StepFailed) -> tuple[int, int]:
    return event.timestamp_us, int(event.event_id)


def _checked_grouping(grouping: Grouping) -> Grouping:
    if grouping not in GROUPINGS:
        raise InvalidArgument("grouping_strategy", grouping, f"one of {', '.join(GROUPINGS)}")
    return grouping
