"""Saves of workflow events, one method each; they record and do nothing else, as `saves_steps.py` says.

`duration_us` of a run's end counts from RunSubmitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redisflow.backend.drafts import GivenError, describe_error, json_text, make_event
from redisflow.backend.saves_steps import Appends
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import RunFailureReason, ValidationIssue


class WorkflowSaves(Appends):
    """One method an event of a run."""

    async def save_run_submitted(
        self, workflow_slug: str, run_id: str, *, version_id: str, available_at: int, priority: int = 0,
        input: str | None = None, has_input_schema: bool = False, timeout: int | None = None,
        idempotency_key: str | None = None, metadata: Mapping[str, Any] | None = None, tags: Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        """RunSubmitted: creates the run where there is none. The key is recorded, not claimed: `submit_run` does that.

        Args:
            workflow_slug: its workflow.
            run_id: the run.
            version_id: the version it is to run.
            available_at: from when it may run.
            priority: -100 to 100, higher is more urgent.
            input: JSON text.
            has_input_schema: whether the workflow declares one.
            timeout: µs from `available_at` within which it must end.
            idempotency_key: the key it came with.
            metadata: JSON-able values kept with the run.
            tags: words to find it by.

        Raises:
            InvalidArgument, PayloadTooLarge: nothing was written.
        """
        await self._save(workflow_slug, run_id, make_event(
            "RunSubmitted", workflow_slug, run_id, version_id=version_id, available_at_us=available_at, priority=priority,
            input=input, has_input_schema=has_input_schema, timeout_us=timeout, idempotency_key=idempotency_key,
            metadata=metadata, tags=tags,
        ))  # fmt: skip

    async def save_workflow_start(
        self, workflow_slug: str, run_id: str, *, version_id: str, workflow_attempt_number: int, has_input_schema: bool,
        has_input: bool,
    ) -> None:  # fmt: skip
        """WorkflowStarted: the run is running; creates the run where there is none."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowStarted", workflow_slug, run_id, version_id=version_id, workflow_attempt_number=workflow_attempt_number,
            has_input_schema=has_input_schema, has_input=has_input,
        ))  # fmt: skip

    async def save_workflow_input_validation(
        self, workflow_slug: str, run_id: str, *, workflow_attempt_number: int, has_schema: bool, success: bool,
        error: GivenError | None = None, validation_errors: Sequence[ValidationIssue | Mapping[str, Any]] | None = None,
    ) -> None:  # fmt: skip
        """WorkflowInputValidation, with path and message of each field that does not fit."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowInputValidation", workflow_slug, run_id, workflow_attempt_number=workflow_attempt_number,
            has_schema=has_schema, success=success, error=None if error is None else describe_error(error),
            validation_errors=validation_errors,
        ))  # fmt: skip

    async def save_workflow_complete(
        self, workflow_slug: str, run_id: str, output: Mapping[str, object], *, workflow_attempt_number: int, duration_us: int,
        total_steps: int,
    ) -> None:  # fmt: skip
        """WorkflowCompleted; the output is an object, step id to output, of the completed exported steps."""
        if not isinstance(output, Mapping):
            raise InvalidArgument("output", output, "an object, step id to output")
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowCompleted", workflow_slug, run_id, output=json_text("output", dict(output)),
            workflow_attempt_number=workflow_attempt_number, duration_us=duration_us, total_steps=total_steps,
        ))  # fmt: skip

    async def save_workflow_failed(
        self, workflow_slug: str, run_id: str, error: GivenError, *, workflow_attempt_number: int, duration_us: int,
        completed_steps: int, failure_reason: RunFailureReason, failed_step: str | None = None,
    ) -> None:  # fmt: skip
        """WorkflowFailed; `failed_step` is left out for a timeout of the run."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowFailed", workflow_slug, run_id, error=describe_error(error),
            workflow_attempt_number=workflow_attempt_number, duration_us=duration_us, completed_steps=completed_steps,
            failure_reason=failure_reason, failed_step=failed_step,
        ))  # fmt: skip

    async def save_workflow_resumed(
        self, workflow_slug: str, run_id: str, *, version_id: str, original_run_id: str, resumed_steps: int, pending_steps: int,
    ) -> None:  # fmt: skip
        """WorkflowResumed: recorded only, it changes no state."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowResumed", workflow_slug, run_id, version_id=version_id, original_run_id=original_run_id,
            resumed_steps=resumed_steps, pending_steps=pending_steps,
        ))  # fmt: skip

    async def save_workflow_cancelled(
        self, workflow_slug: str, run_id: str, *, workflow_attempt_number: int, duration_us: int, completed_steps: int,
        reason: str | None = None,
    ) -> None:  # fmt: skip
        """WorkflowCancelled: somebody cancelled the run."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowCancelled", workflow_slug, run_id, workflow_attempt_number=workflow_attempt_number,
            duration_us=duration_us, completed_steps=completed_steps, reason=reason,
        ))  # fmt: skip

    async def save_workflow_retry_started(
        self, workflow_slug: str, run_id: str, *, workflow_attempt_number: int, previous_attempt_number: int,
        retried_steps: Sequence[str], reason: str | None = None,
    ) -> None:  # fmt: skip
        """WorkflowRetryStarted: the run is pending in its next attempt; attempts of steps keep counting."""
        await self._save(workflow_slug, run_id, make_event(
            "WorkflowRetryStarted", workflow_slug, run_id, workflow_attempt_number=workflow_attempt_number,
            previous_attempt_number=previous_attempt_number, retried_steps=retried_steps,
            reason=reason,
        ))  # fmt: skip
