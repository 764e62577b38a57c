"""Saves of step events: arguments to events, on the one primitive `batch_append_events`.

Saves record. They append their events and fold them, and that is all: no fence, no advance of the graph, no end of the run. The
engine's own transitions (turn, claim, reclaim) do those. Events are stamped by the server; all times are microseconds since the
epoch, all durations microseconds, save `retry_delay_ms`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from redisflow.backend.checks import check_integer, check_list
from redisflow.backend.drafts import (
    GivenError,
    GivenEvent,
    describe_error,
    json_text,
    make_event,
)
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import (
    CheckpointRef,
    ResourceSnapshot,
    ResourceUsage,
    ScheduleReason,
    SkipType,
    StepFailureReason,
)
from redisflow.model.fingerprints import fingerprint_error
from redisflow.model.states import StepLog

RETRIED_REASONS = ("execution-error", "timeout")


class HeartbeatSlot(TypedDict, total=False):
    """Where a step runs, and what it holds."""

    slot_index: int | None
    worker_concurrency: int | None
    resource_snapshot: ResourceSnapshot | Mapping[str, Any] | None


class Appends(ABC):
    """What all saves stand on."""

    @abstractmethod
    async def batch_append_events(self, events: Sequence[tuple[str, str, GivenEvent]]) -> list[str]:
        """Append events of any runs, in one round trip a partition, each partition's whole or not at all.

        Args:
            events: (workflow slug, run id, event) of each; an event is a model or its wire form. A missing id or time
                is filled in by the server; an id not above the run's last gives way to the next, a given time is kept.

        Returns:
            The events' ids, in the order given.

        Raises:
            InvalidInput, InvalidArgument, PayloadTooLarge: an event is wrong; nothing was written.
            RunNotFound: a run does not exist and its first event here is neither RunSubmitted nor WorkflowStarted.
        """

    async def append_event(self, workflow_slug: str, run_id: str, event: GivenEvent) -> str:
        """Append one event; as `batch_append_events`. Returns its id."""
        return (await self.batch_append_events([(workflow_slug, run_id, event)]))[0]

    async def _save(self, slug: str, run_id: str, *events: dict[str, Any]) -> list[str]:
        return await self.batch_append_events([(slug, run_id, event) for event in events])


class StepSaves(Appends):
    """One method an event of a step."""

    async def save_step_scheduled(
        self, workflow_slug: str, run_id: str, step_id: str, *, available_at: int, reason: ScheduleReason, attempt_number: int,
        retry_delay_ms: int | None = None, priority: int | None = None,
    ) -> None:  # fmt: skip
        """StepScheduled: the step may run from `available_at` on; without a priority it has the run's."""
        await self._save(workflow_slug, run_id, make_event(
            "StepScheduled", workflow_slug, run_id, step_id=step_id, available_at_us=available_at, reason=reason,
            attempt_number=attempt_number, retry_delay_ms=retry_delay_ms, priority=priority,
        ))  # fmt: skip

    async def save_step_start(
        self, workflow_slug: str, run_id: str, step_id: str, worker_id: str, *, dependencies: Sequence[str], attempt_number: int,
        slot_index: int | None = None, worker_concurrency: int | None = None,
    ) -> None:  # fmt: skip
        """StepStarted: a worker runs this attempt."""
        await self._save(workflow_slug, run_id, make_event(
            "StepStarted", workflow_slug, run_id, step_id=step_id, worker_id=worker_id,
            dependencies=dependencies, attempt_number=attempt_number, slot_index=slot_index,
            worker_concurrency=worker_concurrency,
        ))  # fmt: skip

    async def save_step_complete(
        self, workflow_slug: str, run_id: str, step_id: str, output: object, *, duration_us: int, attempt_number: int,
        logs: Sequence[StepLog | Mapping[str, Any]] | None = None,
        resource_usage: ResourceUsage | Mapping[str, Any] | None = None, export_output: bool = False,
    ) -> None:  # fmt: skip
        """StepCompleted, and before it a LogEntry a line with its own time and this attempt, all in one script.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            output: any value; what has no JSON form is kept in a described one.
            duration_us: how long the attempt ran.
            attempt_number: the attempt.
            logs: lines that it wrote.
            resource_usage: what it used.
            export_output: whether the output is part of the workflow's.

        Raises:
            InvalidArgument, PayloadTooLarge: nothing was written.
            RunNotFound: there is no such run.
        """
        completed = make_event(
            "StepCompleted", workflow_slug, run_id, step_id=step_id, output=json_text("output", output), duration_us=duration_us,
            attempt_number=attempt_number, export_output=export_output, resource_usage=resource_usage,
        )  # fmt: skip
        lines = _log_events(workflow_slug, run_id, step_id, () if logs is None else logs, attempt_number)
        await self._save(workflow_slug, run_id, *lines, completed)

    async def save_step_failed(
        self, workflow_slug: str, run_id: str, step_id: str, error: GivenError, *, duration_us: int, attempt_number: int,
        terminal: bool, failure_reason: StepFailureReason, next_retry_at: int | None = None,
        resource_usage: ResourceUsage | Mapping[str, Any] | None = None, policy_index: int | None = None,
        attempt_in_policy: int | None = None,
    ) -> None:  # fmt: skip
        """StepFailed with the error's fingerprints; `terminal` says that no attempt follows."""
        described = describe_error(error)
        await self._save(workflow_slug, run_id, make_event(
            "StepFailed", workflow_slug, run_id, step_id=step_id, error=described, error_fingerprints=fingerprint_error(described),
            duration_us=duration_us, attempt_number=attempt_number, terminal=terminal, failure_reason=failure_reason,
            next_retry_at_us=next_retry_at, resource_usage=resource_usage, policy_index=policy_index,
            attempt_in_policy=attempt_in_policy,
        ))  # fmt: skip

    async def save_step_failed_and_schedule_retry(
        self, workflow_slug: str, run_id: str, step_id: str, error: GivenError, *, duration_us: int, attempt_number: int,
        next_retry_at: int, failure_reason: StepFailureReason, available_at: int, next_attempt_number: int, retry_delay_ms: int,
        max_retries: int | None = None, total_policies: int | None = None, policy_index: int | None = None,
        attempt_in_policy: int | None = None, next_policy_index: int | None = None, next_attempt_in_policy: int | None = None,
        priority: int | None = None, resource_usage: ResourceUsage | Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """StepFailed (not terminal), StepRetrying and StepScheduled (retry) in one atomic script.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            error: what went wrong.
            duration_us: how long the attempt ran.
            attempt_number: the attempt that failed.
            next_retry_at: when it will be tried again, as the failure says it.
            failure_reason: `execution-error` or `timeout`.
            available_at: when the next attempt may run.
            next_attempt_number: the failed one's and 1.
            retry_delay_ms: the delay between the two, in milliseconds.
            max_retries: of the policy.
            total_policies: tiers that the policy has.
            policy_index: tier of the failed attempt.
            attempt_in_policy: its number in that tier.
            next_policy_index: tier of the next attempt.
            next_attempt_in_policy: its number in that tier.
            priority: of the next attempt; None: the run's.
            resource_usage: what the failed attempt used.

        Raises:
            InvalidArgument: nothing was written.
            RunNotFound: there is no such run.
        """
        if failure_reason not in RETRIED_REASONS:
            raise InvalidArgument("failure_reason", failure_reason, " or ".join(RETRIED_REASONS))
        # what the events may leave out, or carry under another name
        check_integer("next_retry_at", next_retry_at, unit="microseconds since the epoch")
        check_integer("retry_delay_ms", retry_delay_ms, unit="milliseconds")
        check_integer("next_policy_index", next_policy_index, optional=True)
        check_integer("next_attempt_in_policy", next_attempt_in_policy, 1, optional=True)
        described = describe_error(error)
        step = {"workflow_slug": workflow_slug, "run_id": run_id, "step_id": step_id}
        failed = make_event(
            "StepFailed", **step, error=described, error_fingerprints=fingerprint_error(described), duration_us=duration_us,
            attempt_number=attempt_number, terminal=False, failure_reason=failure_reason, next_retry_at_us=next_retry_at,
            resource_usage=resource_usage, policy_index=policy_index, attempt_in_policy=attempt_in_policy,
        )  # fmt: skip
        if next_attempt_number != attempt_number + 1:
            raise InvalidArgument(
                "next_attempt_number", next_attempt_number, f"attempt_number + 1 = {attempt_number + 1}"
            )
        retrying = make_event(
            "StepRetrying", **step, attempt_number=attempt_number, next_attempt=next_attempt_number, error=described,
            max_retries=max_retries, total_policies=total_policies, policy_index=next_policy_index,
        )  # fmt: skip
        scheduled = make_event(
            "StepScheduled", **step, available_at_us=available_at, reason="retry", attempt_number=next_attempt_number,
            retry_delay_ms=retry_delay_ms, priority=priority, policy_index=next_policy_index,
            attempt_in_policy=next_attempt_in_policy,
        )  # fmt: skip
        await self._save(workflow_slug, run_id, failed, retrying, scheduled)

    async def save_step_skipped(
        self, workflow_slug: str, run_id: str, step_id: str, *, skip_type: SkipType, reason: str,
        metadata: Mapping[str, Any] | None = None, duration_us: int, attempt_number: int, cascaded_from: str | None = None,
    ) -> None:  # fmt: skip
        """StepSkipped: it said so itself (primary), or `cascaded_from` was skipped (cascade)."""
        await self._save(workflow_slug, run_id, make_event(
            "StepSkipped", workflow_slug, run_id, step_id=step_id, skip_type=skip_type, reason=reason, metadata=metadata,
            duration_us=duration_us, attempt_number=attempt_number, cascaded_from=cascaded_from,
        ))  # fmt: skip

    @abstractmethod
    async def save_step_heartbeat(
        self, workflow_slug: str, run_id: str, step_id: str, worker_id: str, attempt_number: int,
        slot: HeartbeatSlot | None = None,
    ) -> None:  # fmt: skip
        """StepHeartbeat; the lease moves only where this worker runs this attempt."""

    async def save_step_reclaimed(
        self, workflow_slug: str, run_id: str, step_id: str, *, original_worker_id: str, reclaimed_by: str, last_heartbeat: int,
        stale_threshold: int, stale_duration: int, attempt_number: int,
    ) -> None:  # fmt: skip
        """StepReclaimed: the attempt was taken from a worker whose last heartbeat was too long ago."""
        await self._save(workflow_slug, run_id, make_event(
            "StepReclaimed", workflow_slug, run_id, step_id=step_id, original_worker_id=original_worker_id,
            reclaimed_by=reclaimed_by, last_heartbeat_us=last_heartbeat, stale_threshold_us=stale_threshold,
            stale_duration_us=stale_duration, attempt_number=attempt_number,
        ))  # fmt: skip

    async def save_step_logs(
        self, workflow_slug: str, run_id: str, step_id: str, logs: Sequence[StepLog | Mapping[str, Any]]
    ) -> None:
        """LogEntry a line, each with its own time and attempt; no lines write nothing."""
        lines = _log_events(workflow_slug, run_id, step_id, logs, None)
        if lines:
            await self._save(workflow_slug, run_id, *lines)

    async def save_step_checkpoint(
        self, workflow_slug: str, run_id: str, step_id: str, *, name: str, sequence_number: int, attempt_number: int, data: str,
        label: str | None = None, parent_checkpoint: CheckpointRef | Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """StepCheckpoint: a value (JSON text) that a retry replays; the sequence counts from 0 for each name."""
        await self._save(workflow_slug, run_id, make_event(
            "StepCheckpoint", workflow_slug, run_id, step_id=step_id, name=name,
            sequence_number=sequence_number, attempt_number=attempt_number, data=data, label=label,
            parent_checkpoint=parent_checkpoint,
        ))  # fmt: skip

    async def save_step_checkpoint_failed(
        self, workflow_slug: str, run_id: str, step_id: str, *, name: str, sequence_number: int, attempt_number: int,
        error: GivenError,
    ) -> None:  # fmt: skip
        """StepCheckpointFailed: what was to become a checkpoint raised."""
        await self._save(workflow_slug, run_id, make_event(
            "StepCheckpointFailed", workflow_slug, run_id, step_id=step_id, name=name,
            sequence_number=sequence_number, attempt_number=attempt_number, error=describe_error(error),
        ))  # fmt: skip


def _log_events(
    slug: str, run_id: str, step_id: str, logs: Sequence[StepLog | Mapping[str, Any]], attempt: int | None
) -> list[dict[str, Any]]:
    """LogEntry events of lines; a given attempt stands in for the lines' own."""
    made = []
    for position, given in enumerate(check_list("logs", logs, "lines: timestamp, stream, message, attempt_number")):
        line = given.model_dump() if isinstance(given, StepLog) else given
        if not isinstance(line, Mapping):
            raise InvalidArgument(f"logs.{position}", line, "timestamp, stream, message, attempt_number")
        at = line.get("timestamp")
        check_integer(f"logs.{position}.timestamp", at, unit="microseconds since the epoch")
        event = make_event(
            "LogEntry", slug, run_id, step_id=step_id, stream=line.get("stream"), message=line.get("message"),
            attempt_number=attempt or line.get("attempt_number", line.get("attemptNumber")),
        )  # fmt: skip
        made.append({**event, "timestampUs": at})
    return made
