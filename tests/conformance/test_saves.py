"""Each save writes the event that it names with the fields that it was given, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from redisflow.backend.base import Backend
from redisflow.model.errors import InvalidArgument, RunNotFound, UsageError
from redisflow.model.events import AnyEvent
from redisflow.model.projections import project_run_state
from redisflow.model.states import StepLog
from tests.conformance.conftest import Contract
from tests.flows import scores, snapshot

T = 1_700_000_000_000_000
AT = ("flow", "r1")
STEP = (*AT, "group/a")
USAGE = {
    "peak_memory_bytes": 9, "cpu_time_user_us": 1, "cpu_time_system_us": 2, "cpu_time_total_us": 3,
    "voluntary_context_switches": 4, "involuntary_context_switches": 5,
}  # fmt: skip
SUBMITTED: dict[str, Any] = {"version_id": "v1", "available_at": T}
STARTED: dict[str, Any] = {
    "version_id": "v1", "workflow_attempt_number": 1, "has_input_schema": False, "has_input": False,
}  # fmt: skip
RETRY: dict[str, Any] = {
    "duration_us": 7, "attempt_number": 1, "next_retry_at": T + 5, "failure_reason": "timeout", "available_at": T + 5,
    "next_attempt_number": 2, "retry_delay_ms": 5,
}  # fmt: skip
RECLAIM: dict[str, Any] = {
    "original_worker_id": "w1", "reclaimed_by": "r", "last_heartbeat": T, "stale_threshold": 5, "stale_duration": 6,
    "attempt_number": 1,
}  # fmt: skip


async def begin(contract: Backend) -> None:
    await contract.save_run_submitted(*AT, **SUBMITTED)
    await contract.save_workflow_start(*AT, **STARTED)


async def run(contract: Backend, attempt: int = 1, worker: str = "w1") -> None:
    await contract.save_step_start(*STEP, worker, dependencies=[], attempt_number=attempt)


async def last(contract: Backend, count: int = 1) -> list[AnyEvent]:
    return (await contract.load_events(*AT))[-count:]


async def test_a_run_from_its_first_event_to_its_end(contract: Backend) -> None:
    await contract.initialize_run(*AT)
    assert not await contract.run_exists(*AT)
    await contract.save_run_submitted(
        *AT,
        **SUBMITTED,
        priority=5,
        input='{"n": 1}',
        timeout=10**12,
        idempotency_key="k",
        metadata={"by": "x"},
        tags=["eu"],
    )
    assert await contract.run_exists(*AT)
    await contract.save_workflow_start(*AT, **STARTED)
    await contract.save_workflow_input_validation(
        *AT, workflow_attempt_number=1, has_schema=True, success=False, error={"message": "bad"},
        validation_errors=[{"path": "a.b", "message": "is required"}],
    )  # fmt: skip
    await contract.save_step_scheduled(*STEP, available_at=T, reason="initial", attempt_number=1)
    await run(contract)
    await contract.save_step_complete(*STEP, {"x": [None, False]}, duration_us=5, attempt_number=1, export_output=True)
    await contract.save_workflow_complete(
        *AT, {"group/a": {"x": [None, False]}}, workflow_attempt_number=1, duration_us=9, total_steps=1
    )
    state = await contract.get_run("r1")
    assert state == project_run_state(await contract.load_events(*AT))
    assert state is not None
    assert (state.status, state.priority, state.tags, state.timeout) == ("completed", 5, ("eu",), 10**12)
    (record,) = await contract.load_run(*AT)
    assert (record.status, record.output, record.step_id) == ("completed", '{"x":[null,false]}', "group/a")
    assert (await contract.list_run_ids("flow"), await contract.list_active_workflows()) == (["r1"], [])


@pytest.mark.parametrize("output", [False, None, "", 0, [], {}], ids=repr)
async def test_any_output_is_kept(contract: Backend, output: object) -> None:
    await begin(contract)
    await run(contract)
    await contract.save_step_complete(*STEP, output, duration_us=0, attempt_number=1)
    (event,) = await last(contract)
    assert (
        event.to_wire()["output"]
        == {"False": "false", "None": "null", "''": '""', "0": "0", "[]": "[]", "{}": "{}"}[repr(output)]
    )


async def test_an_output_without_a_json_form_is_described(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    await contract.save_step_complete(*STEP, object(), duration_us=0, attempt_number=1)
    (event,) = await last(contract)
    assert "builtins.object" in event.to_wire()["output"]


async def test_an_output_that_contains_itself_is_refused(contract: Backend) -> None:
    await begin(contract)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidArgument, match="output"):
        await contract.save_step_complete(*STEP, loop, duration_us=0, attempt_number=1)


async def test_a_failure_with_fingerprints_and_tiers(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    try:
        raise ValueError("boom")
    except ValueError as error:
        await contract.save_step_failed(
            *STEP, error, duration_us=3, attempt_number=1, terminal=True, failure_reason="execution-error", policy_index=1,
            attempt_in_policy=2, resource_usage=USAGE,
        )  # fmt: skip
    wire = (await last(contract))[0].to_wire()
    assert (wire["error"]["name"], wire["error"]["message"]) == ("ValueError", "boom")
    assert len(wire["errorFingerprints"]) == 5
    assert (wire["policyIndex"], wire["attemptInPolicy"], wire["resourceUsage"]["cpuTimeTotalUs"]) == (1, 2, 3)
    (failed,) = await contract.get_failed_steps(*AT)
    assert (failed.step_id, failed.error.message, failed.attempt_number) == ("group/a", "boom", 1)


async def test_a_failure_and_its_retry_are_one(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    await contract.save_step_failed_and_schedule_retry(
        *STEP, {"message": "slow"}, **RETRY, max_retries=3, total_policies=2, policy_index=0, attempt_in_policy=1,
        next_policy_index=1, next_attempt_in_policy=1, priority=4,
    )  # fmt: skip
    failed, retrying, scheduled = (event.to_wire() for event in await last(contract, 3))
    assert [event["type"] for event in (failed, retrying, scheduled)] == ["StepFailed", "StepRetrying", "StepScheduled"]
    assert int(scheduled["eventId"]) - int(failed["eventId"]) == 2
    assert (failed["terminal"], failed["nextRetryAtUs"], failed["policyIndex"]) == (False, T + 5, 0)
    assert (retrying["nextAttempt"], retrying["policyIndex"], retrying["totalPolicies"]) == (2, 1, 2)
    assert (scheduled["policyIndex"], scheduled["attemptInPolicy"], scheduled["priority"]) == (1, 1, 4)
    assert (scheduled["reason"], scheduled["retryDelayMs"], scheduled["attemptNumber"]) == ("retry", 5, 2)
    assert await contract.get_failed_steps(*AT) == []
    assert await contract.is_step_claimable(*STEP)


async def test_skips_and_reclaims(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    await contract.save_step_reclaimed(*STEP, **RECLAIM)
    await contract.save_step_skipped(
        *STEP,
        skip_type="cascade",
        reason="none",
        metadata={"n": None},
        duration_us=0,
        attempt_number=1,
        cascaded_from="b",
    )
    reclaimed, skipped = (event.to_wire() for event in await last(contract, 2))
    assert (reclaimed["originalWorkerId"], reclaimed["lastHeartbeatUs"], reclaimed["staleDurationUs"]) == ("w1", T, 6)
    assert (skipped["skipType"], skipped["cascadedFrom"]) == ("cascade", "b")


async def test_a_late_end_is_stored_and_changes_nothing(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    await run(contract, attempt=2)
    await contract.save_step_complete(*STEP, 1, duration_us=1, attempt_number=1)
    (record,) = await contract.load_run(*AT)
    assert record.status == "running"
    assert [change.status for change in record.state_changes] == ["running"] * 3


@pytest.mark.parametrize(("worker", "attempt", "moves"), [("w1", 1, True), ("w2", 1, False), ("w1", 2, False)])
async def test_a_heartbeat_moves_only_the_lease_of_its_own(
    contract: Contract, worker: str, attempt: int, moves: bool
) -> None:
    await begin(contract)
    await run(contract)
    before = await scores(contract, contract.keys_of("r1").running)
    snapshot_taken = {"memory_bytes": 5}
    await contract.save_step_heartbeat(
        *STEP, worker, attempt, {"slot_index": 1, "worker_concurrency": 2, "resource_snapshot": snapshot_taken}
    )
    wire = (await last(contract))[0].to_wire()
    assert (wire["type"], wire["slotIndex"], wire["resourceSnapshot"]) == ("StepHeartbeat", 1, {"memoryBytes": 5})
    after = await scores(contract, contract.keys_of("r1").running)
    assert (after["r1|group/a"] > before["r1|group/a"]) == moves


async def test_ends_resumes_and_retries_of_a_run(contract: Backend) -> None:
    await begin(contract)
    await contract.save_workflow_failed(
        *AT, {"message": "no", "name": "E"}, workflow_attempt_number=1, duration_us=5, completed_steps=0, failed_step="a",
        failure_reason="step-failed",
    )  # fmt: skip
    await contract.save_workflow_retry_started(
        *AT, workflow_attempt_number=2, previous_attempt_number=1, retried_steps=["a"], reason="again"
    )
    state = await contract.get_run("r1")
    assert state is not None
    assert (state.status, state.workflow_attempt_number) == ("pending", 2)
    assert await contract.list_active_workflows() == ["flow"]
    await contract.save_workflow_resumed(*AT, version_id="v1", original_run_id="r0", resumed_steps=1, pending_steps=2)
    await contract.save_workflow_cancelled(
        *AT, workflow_attempt_number=2, duration_us=6, completed_steps=0, reason="enough"
    )
    state = await contract.get_run("r1")
    assert state == project_run_state(await contract.load_events(*AT))
    assert [event.type for event in await last(contract, 4)] == [
        "WorkflowFailed", "WorkflowRetryStarted", "WorkflowResumed", "WorkflowCancelled",
    ]  # fmt: skip


async def test_checkpoints(contract: Backend) -> None:
    await begin(contract)
    await run(contract)
    parent = {"name": "outer", "sequence_number": 0}
    await contract.save_step_checkpoint(
        *STEP, name="page", sequence_number=0, attempt_number=1, data='{"n":1}', label="first", parent_checkpoint=parent
    )
    await contract.save_step_checkpoint_failed(
        *STEP, name="page", sequence_number=1, attempt_number=1, error=OSError("gone")
    )
    kept, broken = (event.to_wire() for event in await last(contract, 2))
    assert (kept["data"], kept["parentCheckpoint"]) == ('{"n":1}', {"name": "outer", "sequenceNumber": 0})
    assert (broken["sequenceNumber"], broken["error"]["name"]) == (1, "OSError")


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("save_step_scheduled", STEP, {"available_at": "x", "reason": "initial", "attempt_number": 1}, "available_at"),
    ("save_step_scheduled", STEP, {"available_at": T, "reason": "soon", "attempt_number": 1}, "reason"),
    ("save_step_scheduled", STEP, {"available_at": T, "reason": "initial", "attempt_number": 0}, "attempt_number"),
    ("save_step_start", (*STEP, ""), {"dependencies": [], "attempt_number": 1}, "worker_id"),
    ("save_step_start", (*STEP, "w"), {"dependencies": "a", "attempt_number": 1}, "dependencies"),
    ("save_step_start", ("flow", "r1", "a//b", "w"), {"dependencies": [], "attempt_number": 1}, "step_id"),
    ("save_step_start", ("flow", "r/1", "a", "w"), {"dependencies": [], "attempt_number": 1}, "run_id"),
    ("save_step_start", ("", "r1", "a", "w"), {"dependencies": [], "attempt_number": 1}, "workflow_slug"),
    ("save_step_complete", (*STEP, 1), {"duration_us": -1, "attempt_number": 1}, "duration_us"),
    ("save_step_complete", (*STEP, 1), {"duration_us": 1, "attempt_number": True}, "attempt_number"),
    ("save_step_complete", (*STEP, 1), {"duration_us": 1, "attempt_number": 1, "export_output": 1}, "export_output"),
    ("save_step_complete", (*STEP, 1), {"duration_us": 1, "attempt_number": 1, "logs": "x"}, "logs"),
    ("save_step_complete", (*STEP, 1), {"duration_us": 1, "attempt_number": 1, "logs": [{}]}, "timestamp"),
    ("save_step_failed_and_schedule_retry", (*STEP, {"message": "x"}), {**RETRY, "failure_reason": "cancelled"}, "failure_reason"),
    ("save_step_failed_and_schedule_retry", (*STEP, {"message": "x"}), {**RETRY, "next_attempt_number": 3}, "next_attempt_number"),
    ("save_step_failed_and_schedule_retry", (*STEP, "x"), RETRY, "error"),
    ("save_step_heartbeat", (*STEP, "w", 1, {"slot": 1}), {}, "slot"),
    ("save_step_heartbeat", (*STEP, "w", 0), {}, "attempt_number"),
    ("save_step_checkpoint", STEP, {"name": "n", "sequence_number": -1, "attempt_number": 1, "data": "1"}, "sequence_number"),
    ("save_step_checkpoint", STEP, {"name": "n", "sequence_number": 0, "attempt_number": 1, "data": "{"}, "data"),
    ("save_step_reclaimed", STEP, {**RECLAIM, "stale_threshold": -1}, "stale_threshold"),
    ("save_run_submitted", AT, {**SUBMITTED, "priority": 101}, "priority"),
    ("save_run_submitted", AT, {**SUBMITTED, "tags": ["a b"]}, "tags"),
    ("save_run_submitted", AT, {**SUBMITTED, "input": "{"}, "input"),
    ("save_run_submitted", AT, {**SUBMITTED, "timeout": 0}, "timeout"),
    ("save_workflow_complete", (*AT, "x"), {"workflow_attempt_number": 1, "duration_us": 1, "total_steps": 1}, "output"),
    ("save_workflow_start", AT, {**STARTED, "workflow_attempt_number": 2**32}, "workflow_attempt_number"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "args", "options", "argument"), WRONG, ids=[f"{w[0]}-{w[3]}" for w in WRONG])
async def test_a_wrong_argument_is_named_and_nothing_written(
    contract: Contract, method: str, args: tuple[Any, ...], options: dict[str, Any], argument: str
) -> None:
    await begin(contract)
    before = await snapshot(contract)
    with pytest.raises(UsageError, match=argument):
        await getattr(contract, method)(*args, **options)
    assert await snapshot(contract) == before


async def test_a_deleted_run_does_not_come_back(contract: Contract) -> None:
    await begin(contract)
    await contract.save_workflow_cancelled(*AT, workflow_attempt_number=1, duration_us=6, completed_steps=0)
    assert await contract.delete_run("r1")
    assert not await contract.run_exists(*AT)
    with pytest.raises(RunNotFound):
        await contract.save_step_logs(*STEP, [StepLog(timestamp=T, stream="stdout", message="x", attempt_number=1)])
    with pytest.raises(RunNotFound):
        await contract.save_step_heartbeat(*STEP, "w", 1)
    assert (await contract.load_events(*AT), await contract.load_run(*AT), await contract.list_run_ids("flow")) == (
        [],
        [],
        [],
    )
