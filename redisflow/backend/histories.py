"""What follows from a run's events alone: derived for every backend from the one read `load_events`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from redisflow.backend import keys as k
from redisflow.backend.checks import check_attempt, check_step
from redisflow.model.events import AnyEvent, BaseStepEvent, StepError, StepFailed
from redisflow.model.projections import project_step_logs, project_step_record, project_step_state
from redisflow.model.states import StepLog, StepRecord

NOT_PROJECTED = frozenset({"LogEntry", "StepHeartbeat", "StepRetrying"})


@dataclass(frozen=True, slots=True)
class FailedStep:
    """A step that failed for good, with the error and number of the attempt that did."""

    step_id: str
    error: StepError
    attempt_number: int


class Histories(ABC):
    """Reads that need nothing but the events; a run that does not exist has none."""

    @abstractmethod
    async def load_events(
        self, workflow_slug: str, run_id: str, category: str | None = None, step_id: str | None = None,
        types: Iterable[str] | None = None,
    ) -> list[AnyEvent]:  # fmt: skip
        """Events of a run by time, then id; [] where there is no such run.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            category: `step` or `workflow`; None for both.
            step_id: narrows step events to one step.
            types: narrows to these event types.

        Raises:
            InvalidArgument: `category` is unknown, or `step_id` comes with category `workflow`.
        """

    async def load_run(self, workflow_slug: str, run_id: str) -> list[StepRecord]:
        """The record of each step that has events, in order of first appearance."""
        return [project_step_record(events) for events in (await self._by_step(workflow_slug, run_id)).values()]

    async def load_step_events_for_projection(self, workflow_slug: str, run_id: str) -> dict[str, list[AnyEvent]]:
        """Events by step, without those that no state follows from: LogEntry, StepHeartbeat, StepRetrying."""
        found = {}
        for step_id, events in (await self._by_step(workflow_slug, run_id)).items():
            kept = [event for event in events if event.type not in NOT_PROJECTED]
            if kept:
                found[step_id] = kept
        return found

    async def load_step_logs(
        self, workflow_slug: str, run_id: str, step_id: str, attempt_number: int | None = None
    ) -> list[StepLog] | None:
        """Lines that a step wrote, by their time; None where there are none.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            attempt_number: only lines of this attempt.

        Raises:
            InvalidArgument: an argument is out of range.
        """
        check_step(workflow_slug, run_id, step_id)
        check_attempt("attempt_number", attempt_number, optional=True)
        logs = project_step_logs(await self.load_events(workflow_slug, run_id, "step", step_id, ["LogEntry"]))
        return [log for log in logs if attempt_number in (None, log.attempt_number)] or None

    async def get_failed_steps(self, workflow_slug: str, run_id: str) -> list[FailedStep]:
        """Steps that have failed for good, and are not at work again since."""
        failed = []
        for step_id, events in (await self._by_step(workflow_slug, run_id)).items():
            if project_step_state(events).status == "failed":
                last = [event for event in events if isinstance(event, StepFailed) and event.terminal][-1]
                failed.append(FailedStep(step_id, last.error, last.attempt_number))
        return failed

    async def _by_step(self, workflow_slug: str, run_id: str) -> dict[str, list[AnyEvent]]:
        k.check_slug(workflow_slug)
        by_step: dict[str, list[AnyEvent]] = {}
        for event in await self.load_events(workflow_slug, run_id, "step"):
            if isinstance(event, BaseStepEvent):
                by_step.setdefault(event.step_id, []).append(event)
        return by_step
