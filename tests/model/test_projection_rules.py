"""The rules of the folds that no worked case shows, one test each."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from redisflow.model.errors import InvalidArgument
from redisflow.model.events import AnyEvent, parse_event
from redisflow.model.projections import (
    current_attempt,
    project_run_state,
    project_runs,
    project_step_attempts,
    project_step_logs,
    project_step_record,
    project_step_state,
    project_steps,
    run_version_id,
)
from tests.strategies import histories

STATES = json.loads((Path(__file__).parents[1] / "data" / "states.schema.json").read_text())
USAGE = {
    "peakMemoryBytes": 1,
    "cpuTimeUserUs": 2,
    "cpuTimeSystemUs": 3,
    "cpuTimeTotalUs": 5,
    "voluntaryContextSwitches": 0,
    "involuntaryContextSwitches": 0,
}
HASHES = dict.fromkeys(("nameHash", "messageHash", "stackExactHash", "stackNormalizedHash", "stackPortableHash"), "0")


def step(kind: str, at: int, attempt: int = 1, **fields: Any) -> AnyEvent:
    defaults: dict[str, dict[str, Any]] = {
        "StepScheduled": {"availableAtUs": at, "reason": "initial"},
        "StepStarted": {"workerId": "w1", "dependencies": []},
        "StepHeartbeat": {"workerId": "w1"},
        "StepCompleted": {"output": "1", "durationUs": 7, "exportOutput": False},
        "StepFailed": {
            "error": {"message": "no"},
            "errorFingerprints": HASHES,
            "durationUs": 7,
            "terminal": True,
            "failureReason": "execution-error",
        },
        "StepSkipped": {"skipType": "primary", "reason": "why", "durationUs": 0},
        "StepReclaimed": {
            "originalWorkerId": "w1",
            "reclaimedBy": "r",
            "lastHeartbeatUs": 0,
            "staleThresholdUs": 1,
            "staleDurationUs": 2,
        },
        "LogEntry": {"stream": "stdout", "message": "hi"},
    }
    base = {
        "eventId": str(at),
        "timestampUs": at,
        "workflowSlug": "checkout",
        "runId": "r",
        "category": "step",
    }
    common = {"stepId": "s", "type": kind, "attemptNumber": attempt}
    return parse_event({**base, **common, **defaults.get(kind, {}), **fields})


def run(kind: str, at: int, **fields: Any) -> AnyEvent:
    defaults: dict[str, dict[str, Any]] = {
        "RunSubmitted": {"versionId": "v0", "availableAtUs": 5, "priority": 2, "hasInputSchema": False},
        "WorkflowStarted": {"versionId": "v1", "hasInputSchema": False, "hasInput": False},
        "WorkflowCompleted": {"output": "{}", "durationUs": 1, "totalSteps": 1},
        "WorkflowCancelled": {"durationUs": 1, "completedSteps": 0},
        "WorkflowRetryStarted": {"previousAttemptNumber": 1, "retriedSteps": []},
    }
    base = {
        "eventId": str(at),
        "timestampUs": at,
        "workflowSlug": "checkout",
        "runId": "r",
        "category": "workflow",
    }
    return parse_event({**base, "type": kind, "workflowAttemptNumber": 1, **defaults[kind], **fields})


def statuses(events: list[AnyEvent]) -> list[str]:
    return [change.status for change in project_step_state(events).state_changes]


def test_no_events_is_an_error() -> None:
    for fold in (project_step_state, project_step_record, project_run_state):
        with pytest.raises(InvalidArgument, match="events"):
            fold([])
    for empty in (project_step_logs, project_step_attempts, project_steps, project_runs):
        assert not empty([])


def test_unknown_types_do_nothing() -> None:
    events = [step("StepStarted", 10), step("StepCompleted", 20)]
    noise = [step("x.Traced", at, stepId=name) for at, name in ((5, "s"), (15, "s"), (25, "other"))]
    mixed = [noise[0], events[0], noise[1], events[1], noise[2]]
    assert project_steps(mixed) == project_steps(events)
    with pytest.raises(InvalidArgument):
        project_step_state(noise)


def test_a_step_with_only_a_log_is_pending() -> None:
    state = project_step_state([step("LogEntry", 10)])
    assert (state.status, state.attempt_number, state.state_changes) == ("pending", 1, ())


def test_a_stale_end_only_adds_a_change_with_the_present_status() -> None:
    events = [step("StepStarted", 10), step("StepStarted", 20, 2)]
    before = project_step_state(events)
    for late in (step("StepCompleted", 30), step("StepFailed", 30), step("StepFailed", 30, terminal=False)):
        after = project_step_state([*events, late])
        assert after.model_copy(update={"state_changes": ()}) == before.model_copy(update={"state_changes": ()})
        assert [(change.status, change.timestamp) for change in after.state_changes][-1] == ("running", 30)


def test_an_end_of_a_higher_attempt_counts_from_any_status_and_leaves_the_number() -> None:
    state = project_step_state([step("StepCompleted", 10, 3)])
    assert (state.status, state.attempt_number) == ("completed", 1)
    ended = project_step_state([step("StepSkipped", 5), step("StepFailed", 10, 1)])
    assert (ended.status, ended.terminal) == ("failed", True)


def test_a_start_of_an_older_attempt_lowers_the_number() -> None:
    events = [step("StepStarted", 10, 3), step("StepStarted", 20, 1), step("StepCompleted", 30, 1)]
    assert project_step_state(events[:2]).attempt_number == 1
    assert project_step_state(events).status == "completed"


def test_a_heartbeat_after_the_end_moves_the_claim() -> None:
    events = [step("StepStarted", 10), step("StepCompleted", 20), step("StepHeartbeat", 30, workerId="w2")]
    state = project_step_state(events)
    assert (state.status, state.claimed_by, state.last_heartbeat) == ("completed", "w2", 30)
    assert statuses(events) == ["running", "completed"]


def test_a_late_end_counts_after_reclaimed_alone_and_is_stale_from_scheduled_on() -> None:
    reclaimed = [step("StepStarted", 10), step("StepReclaimed", 20)]
    assert project_step_state(reclaimed).status == "running"
    assert statuses(reclaimed) == ["running", "scheduled"]
    assert project_step_state([*reclaimed, step("StepCompleted", 30)]).status == "completed"
    rescheduled = [*reclaimed, step("StepScheduled", 25, 2, reason="retry")]
    late = project_step_state([*rescheduled, step("StepCompleted", 30)])
    assert (late.status, late.output, late.was_reclaimed) == ("scheduled", None, True)


def test_between_scheduled_and_started_an_end_is_stale_for_the_state_only() -> None:
    events = [step("StepStarted", 10), step("StepScheduled", 20, 2), step("StepCompleted", 30, 1)]
    assert project_step_state(events).status == "scheduled"
    assert project_step_record(events).status == "completed"


def test_a_stale_end_of_the_record_adds_a_change_too() -> None:
    events = [step("StepStarted", 10), step("StepStarted", 20, 2), step("StepFailed", 30, 1)]
    record = project_step_record(events)
    assert (record.status, record.error) == ("running", None)
    assert [change.status for change in record.state_changes] == ["running", "running", "running"]


def test_scheduled_removes_the_claim_and_what_is_absent() -> None:
    events = [
        step("StepScheduled", 5, priority=4),
        step("StepStarted", 10),
        step("StepHeartbeat", 11),
        step("StepFailed", 12, terminal=False, nextRetryAtUs=50, resourceUsage=USAGE),
        step("StepScheduled", 13, 2, reason="retry"),
    ]
    assert project_step_state(events).to_wire() | {"stateChanges": []} == {
        "stepId": "s",
        "runId": "r",
        "workflowSlug": "checkout",
        "status": "scheduled",
        "availableAt": 13,
        "scheduleReason": "retry",
        "attemptNumber": 2,
        "scheduledAt": 13,
        "dependencies": [],
        "error": {"message": "no"},
        "terminal": False,
        "nextRetryAt": 50,
        "stateChanges": [],
    }


def test_a_failure_that_is_retried_leaves_status_and_times() -> None:
    events = [step("StepCompleted", 10), step("StepFailed", 20, terminal=False)]
    state = project_step_state(events)
    assert (state.status, state.end_time, state.duration, state.output) == ("completed", 10, 7, "1")
    assert statuses(events) == ["completed", "running"]


def test_a_terminal_failure_leaves_the_next_retry_and_a_completion_removes_it() -> None:
    events = [step("StepFailed", 10, terminal=False, nextRetryAtUs=50), step("StepFailed", 20)]
    assert project_step_state(events).next_retry_at == 50
    done = project_step_state([*events, step("StepCompleted", 30)])
    assert (done.error, done.terminal, done.next_retry_at) == (None, None, None)


def test_an_absent_resource_usage_removes_the_old_one() -> None:
    events = [
        step("StepStarted", 5),
        step("StepCompleted", 10, resourceUsage=USAGE),
        step("StepCompleted", 20),
    ]
    assert project_step_state(events[:2]).resource_usage is not None
    assert project_step_state(events).resource_usage is None
    assert project_step_attempts(events)[0].resource_usage is None


def test_attempts_start_with_started_and_measure_between_the_times() -> None:
    events = [
        step("LogEntry", 1),
        step("StepCompleted", 2),
        step("StepStarted", 10, 2),
        step("StepStarted", 11, 1),
        step("LogEntry", 12, 2),
        step("StepFailed", 30, 2, durationUs=999),
        step("StepStarted", 40, 2),
        step("StepSkipped", 41, 1),
        step("StepReclaimed", 42, 1),
    ]
    assert [attempt.to_wire() for attempt in project_step_attempts(events)] == [
        {"attemptNumber": 1, "status": "running", "startTime": 11, "hasLogs": False, "logCount": 0},
        {
            "attemptNumber": 2,
            "status": "failed",
            "startTime": 40,
            "endTime": 30,
            "duration": 20,
            "hasLogs": True,
            "logCount": 1,
        },
    ]
    assert current_attempt(events) == 3
    late = project_step_attempts([*events, step("StepCompleted", 50, 2)])[1]
    assert (late.status, late.end_time, late.duration) == ("completed", 50, 10)


def test_a_run_without_submission_has_no_state() -> None:
    events = [run("WorkflowStarted", 10)]
    with pytest.raises(InvalidArgument, match="RunSubmitted"):
        project_run_state(events)
    projected = project_runs(events)["r"]
    assert (projected.state, projected.version_id) == (None, "v1")


def test_submission_counts_wherever_it_stands_and_only_the_first() -> None:
    events = [
        run("WorkflowStarted", 10, workflowSlug="first"),
        run("RunSubmitted", 20),
        run("RunSubmitted", 30, priority=9),
    ]
    state = project_run_state(events)
    assert (state.status, state.started_at, state.created_at, state.priority) == ("running", 10, 20, 2)
    assert state.workflow_slug == "first"


def test_a_later_end_overwrites_and_a_retry_keeps_the_times() -> None:
    events = [
        run("RunSubmitted", 1),
        run("WorkflowStarted", 2),
        run("WorkflowCancelled", 3),
        run("WorkflowCompleted", 4),
    ]
    assert (project_run_state(events).status, project_run_state(events).completed_at) == ("completed", 4)
    retried = project_run_state([*events, run("WorkflowRetryStarted", 5, workflowAttemptNumber=2)])
    assert (retried.status, retried.workflow_attempt_number) == ("pending", 2)
    assert (retried.started_at, retried.completed_at) == (2, 4)


def test_the_version_is_that_of_the_first_start() -> None:
    assert run_version_id([run("RunSubmitted", 1)]) == "unknown"
    events = [run("RunSubmitted", 1), run("WorkflowStarted", 2), run("WorkflowStarted", 3, versionId="v2")]
    assert run_version_id(events) == "v1"


def test_step_and_workflow_folds_pass_each_other_by() -> None:
    events = [run("RunSubmitted", 1), step("StepStarted", 2), run("WorkflowStarted", 3)]
    assert project_step_state(events) == project_step_state([events[1]])
    assert project_run_state(events) == project_run_state([events[0], events[2]])


@settings(deadline=None)
@given(history=histories())
def test_any_history_gives_states_that_fit_the_schema(history: list[AnyEvent]) -> None:
    for projected in project_steps(history).values():
        Draft202012Validator(STATES["StepState"]).validate(projected.state.to_wire())
        Draft202012Validator(STATES["StepRecord"]).validate(projected.record.to_wire())
    for projected_run in project_runs(history).values():
        if projected_run.state is not None:
            Draft202012Validator(STATES["RunState"]).validate(projected_run.state.to_wire())
