"""Folds: the state that a history of events gives.

These are the reference for every backend: what a store keeps beside its events must be what these folds give.
They take events in the order given and never sort. The rules stand in words in `tests/data/RULES.md`, worked
cases beside it.

A fold keeps its fields in a plain dict and makes the frozen model once, at the end, without validating what
was validated when the event was read: a history of 100,000 events folds in well under a second. Each event
type has one small reducer; a reducer returns the status that goes into `state_changes`, or None for no
change. An event without a reducer does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from redisflow.model.errors import InvalidArgument
from redisflow.model.events import (
    BaseEvent,
    BaseStepEvent,
    BaseWorkflowEvent,
    LogEntry,
    RunSubmitted,
    StepCompleted,
    StepFailed,
    StepHeartbeat,
    StepReclaimed,
    StepScheduled,
    StepSkipped,
    StepStarted,
    WorkflowCancelled,
    WorkflowCompleted,
    WorkflowFailed,
    WorkflowRetryStarted,
    WorkflowStarted,
)
from redisflow.model.states import (
    RunState,
    RunStatus,
    StateChange,
    StepAttempt,
    StepLog,
    StepRecord,
    StepState,
    StepStatus,
)

_Fields = dict[str, Any]
_Reducer = Callable[[_Fields, Any], StepStatus | None]


class StepProjection(NamedTuple):
    """All that one step's events give."""

    state: StepState
    record: StepRecord
    logs: list[StepLog]
    attempts: list[StepAttempt]
    current_attempt: int


class RunProjection(NamedTuple):
    """All that one run's workflow events give; `state` is None where the run was never submitted."""

    state: RunState | None
    version_id: str


def project_step_state(events: Iterable[BaseEvent]) -> StepState:
    """Fold the events of one step, in order, into its state; workflow events and unknown ones are passed by.

    Raises:
        InvalidArgument: there is no step event.
    """
    history = _step_events(events)
    fields: _Fields = {
        "step_id": history[0].step_id,
        "run_id": history[0].run_id,
        "workflow_slug": history[0].workflow_slug,
        "status": "pending",
        "attempt_number": 1,
        "dependencies": (),
    }
    changes = _replay(history, fields, _STATE)
    return StepState.model_construct(**fields, state_changes=changes)


def project_step_record(events: Iterable[BaseEvent]) -> StepRecord:
    """Fold the events of one step, in order, into its record; workflow events and unknown ones are passed by.

    Raises:
        InvalidArgument: there is no step event.
    """
    history = _step_events(events)
    fields: _Fields = {
        "step_id": history[0].step_id,
        "run_id": history[0].run_id,
        "status": "pending",
        "attempt_number": 1,
        "dependencies": (),
    }
    changes = _replay(history, fields, _RECORD)
    del fields["attempt_number"]  # the record only tests ends against it
    return StepRecord.model_construct(**fields, state_changes=changes)


def _step_events(events: Iterable[BaseEvent]) -> list[BaseStepEvent]:
    history = [event for event in events if isinstance(event, BaseStepEvent)]
    if not history:
        raise InvalidArgument("events", [], "at least one event of the step")
    return history


def _replay(
    history: list[BaseStepEvent], fields: _Fields, reducers: dict[type[BaseStepEvent], _Reducer]
) -> tuple[StateChange, ...]:
    changes = []
    for event in history:
        reducer = reducers.get(type(event))
        if reducer is None:
            continue
        message = None
        if isinstance(event, StepCompleted | StepFailed) and event.attempt_number < fields["attempt_number"]:
            # A worker that had lost the step came back late: kept in the history of changes, otherwise
            # without effect.
            status = fields["status"]
            message = f"late end of attempt {event.attempt_number}"
        else:
            status = reducer(fields, event)
        if status is not None:
            change = StateChange(status=status, timestamp=event.timestamp_us, message=message)
            changes.append(change)
    return tuple(changes)


def _scheduled(fields: _Fields, event: StepScheduled) -> StepStatus:
    fields["status"] = "scheduled"
    fields["available_at"] = event.available_at_us
    fields["schedule_reason"] = event.reason
    fields["attempt_number"] = event.attempt_number
    fields["priority"] = event.priority
    fields["scheduled_at"] = event.timestamp_us
    for name in ("claimed_by", "last_heartbeat", "start_time", "resource_usage"):
        fields.pop(name, None)
    return "scheduled"


def _started(fields: _Fields, event: StepStarted) -> StepStatus:
    fields["claimed_by"] = event.worker_id
    fields.pop("resource_usage", None)
    return _record_started(fields, event)


def _heartbeat(fields: _Fields, event: StepHeartbeat) -> None:
    fields["claimed_by"] = event.worker_id
    fields["last_heartbeat"] = event.timestamp_us


def _completed(fields: _Fields, event: StepCompleted) -> StepStatus:
    fields["export_output"] = event.export_output
    fields["resource_usage"] = event.resource_usage
    _forget_retry(fields)
    return _record_completed(fields, event)


def _failed(fields: _Fields, event: StepFailed) -> StepStatus:
    fields["error"] = event.error
    fields["resource_usage"] = event.resource_usage
    fields["terminal"] = event.terminal
    if event.terminal:
        return _record_failed(fields, event)
    fields["next_retry_at"] = event.next_retry_at_us
    return "running"


def _skipped(fields: _Fields, event: StepSkipped) -> StepStatus:
    _forget_retry(fields)
    return _record_skipped(fields, event)


def _reclaimed(fields: _Fields, event: StepReclaimed) -> StepStatus:
    fields["was_reclaimed"] = True
    fields["reclaimed_from"] = event.original_worker_id
    fields["reclaimed_by"] = event.reclaimed_by
    return "scheduled"


def _forget_retry(fields: _Fields) -> None:
    for name in ("terminal", "next_retry_at"):
        fields.pop(name, None)


def _record_started(fields: _Fields, event: StepStarted) -> StepStatus:
    fields["status"] = "running"
    fields["start_time"] = event.timestamp_us
    fields["dependencies"] = event.dependencies
    fields["attempt_number"] = event.attempt_number
    return "running"


def _record_completed(fields: _Fields, event: StepCompleted) -> StepStatus:
    fields["status"] = "completed"
    fields["end_time"] = event.timestamp_us
    fields["duration"] = event.duration_us
    fields["output"] = event.output
    fields.pop("error", None)
    return "completed"


def _record_failed(fields: _Fields, event: StepFailed) -> StepStatus:
    fields["status"] = "failed"
    fields["end_time"] = event.timestamp_us
    fields["duration"] = event.duration_us
    fields["error"] = event.error
    return "failed"


def _record_skipped(fields: _Fields, event: StepSkipped) -> StepStatus:
    fields["status"] = "skipped"
    fields["end_time"] = event.timestamp_us
    fields["duration"] = event.duration_us
    fields.pop("error", None)
    return "skipped"


_STATE: Final[dict[type[BaseStepEvent], _Reducer]] = {
    StepScheduled: _scheduled,
    StepStarted: _started,
    StepHeartbeat: _heartbeat,
    StepCompleted: _completed,
    StepFailed: _failed,
    StepSkipped: _skipped,
    StepReclaimed: _reclaimed,
}
_RECORD: Final[dict[type[BaseStepEvent], _Reducer]] = {
    StepStarted: _record_started,
    StepCompleted: _record_completed,
    StepFailed: _record_failed,
    StepSkipped: _record_skipped,
}


def project_step_logs(events: Iterable[BaseEvent]) -> list[StepLog]:
    """The lines that a step wrote, in the order of its events; empty where there are none."""
    return [
        StepLog(
            timestamp=event.timestamp_us,
            stream=event.stream,
            message=event.message,
            attempt_number=event.attempt_number,
        )
        for event in events
        if isinstance(event, LogEntry)
    ]


def current_attempt(events: Iterable[BaseEvent]) -> int:
    """How often a step was started: two starts of one attempt count twice."""
    return sum(isinstance(event, StepStarted) for event in events)


def project_step_attempts(events: Iterable[BaseEvent]) -> list[StepAttempt]:
    """The executions of a step by number, ascending; events of an attempt that has not started are passed by.

    A late end still ends its attempt. A skip or reclaim does not, so such an attempt stays running.
    """
    attempts: dict[int, _Fields] = {}
    for event in events:
        if isinstance(event, StepStarted):
            fresh = {
                "attempt_number": event.attempt_number,
                "status": "running",
                "has_logs": False,
                "log_count": 0,
            }
            attempts.setdefault(event.attempt_number, fresh)["start_time"] = event.timestamp_us
        elif isinstance(event, StepCompleted | StepFailed | LogEntry):
            attempt = attempts.get(event.attempt_number)
            if attempt is None:
                continue
            if isinstance(event, LogEntry):
                attempt["has_logs"] = True
                attempt["log_count"] += 1
            else:
                attempt["status"] = "completed" if isinstance(event, StepCompleted) else "failed"
                attempt["end_time"] = event.timestamp_us
                attempt["duration"] = event.timestamp_us - attempt["start_time"]
                attempt["resource_usage"] = event.resource_usage
    return [StepAttempt.model_construct(**attempts[number]) for number in sorted(attempts)]


def project_steps(events: Iterable[BaseEvent]) -> dict[tuple[str, str], StepProjection]:
    """Fold the step events of any number of runs; keys are (run id, step id) in order of first appearance."""
    histories: dict[tuple[str, str], list[BaseEvent]] = {}
    for event in events:
        if isinstance(event, BaseStepEvent):
            histories.setdefault((event.run_id, event.step_id), []).append(event)
    return {
        key: StepProjection(
            project_step_state(history),
            project_step_record(history),
            project_step_logs(history),
            project_step_attempts(history),
            current_attempt(history),
        )
        for key, history in histories.items()
    }


_RUN_ENDS: Final[dict[type[BaseWorkflowEvent], RunStatus]] = {
    WorkflowCompleted: "completed",
    WorkflowFailed: "failed",
    WorkflowCancelled: "cancelled",
}


def project_run_state(events: Iterable[BaseEvent]) -> RunState:
    """Fold the events of one run, in order, into its state; step events and unknown ones are passed by.

    The first RunSubmitted gives the start, wherever it stands; then every event is replayed.

    Raises:
        InvalidArgument: there is no RunSubmitted.
    """
    history = [event for event in events if isinstance(event, BaseWorkflowEvent)]
    submitted = next((event for event in history if isinstance(event, RunSubmitted)), None)
    if submitted is None:
        raise InvalidArgument("events", [event.event_id for event in history], "events with a RunSubmitted")
    fields: _Fields = {
        "run_id": submitted.run_id,
        "workflow_slug": history[0].workflow_slug,
        "status": "pending",
        "available_at": submitted.available_at_us,
        "priority": submitted.priority,
        "created_at": submitted.timestamp_us,
        "workflow_attempt_number": 1,
        "timeout": submitted.timeout_us,
        "idempotency_key": submitted.idempotency_key,
        "metadata": submitted.metadata,
        "tags": submitted.tags,
        "input": submitted.input,
    }
    for event in history:
        end = _RUN_ENDS.get(type(event))
        if end is not None:
            fields["status"] = end
            fields["completed_at"] = event.timestamp_us
        elif isinstance(event, WorkflowStarted):
            fields["status"] = "running"
            fields["started_at"] = event.timestamp_us
        elif isinstance(event, WorkflowRetryStarted):
            fields["status"] = "pending"
            fields["workflow_attempt_number"] = event.workflow_attempt_number
    return RunState.model_construct(**fields)


def run_version_id(events: Iterable[BaseEvent]) -> str:
    """The version that a run first started with; `unknown` before it has started."""
    return next((event.version_id for event in events if isinstance(event, WorkflowStarted)), "unknown")


def project_runs(events: Iterable[BaseEvent]) -> dict[str, RunProjection]:
    """Fold the workflow events of any number of runs; keys are run ids in order of first appearance."""
    histories: dict[str, list[BaseEvent]] = {}
    for event in events:
        if isinstance(event, BaseWorkflowEvent):
            histories.setdefault(event.run_id, []).append(event)
    return {
        run_id: RunProjection(
            project_run_state(history) if any(isinstance(event, RunSubmitted) for event in history) else None,
            run_version_id(history),
        )
        for run_id, history in histories.items()
    }
