"""Submit, what is due and in which order, claims for exactly one, and taking back what is stale."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redisflow.backend.base import Backend
from redisflow.model.errors import InvalidArgument, InvalidInput, RunExists, UsageError, WorkflowNotFound
from redisflow.model.states import RunSubmission
from tests.conformance.conftest import Contract
from tests.flows import CHAIN, ONE, PAIR, SECOND, plan, snapshot, step, travel

SCHEMA = {"type": "object", "properties": {"who": {"properties": {"age": {"type": "integer"}}}}, "required": ["who"]}
FAR = 2**53 - 1


async def submit(contract: Contract, slug: str = "flow", **options: Any) -> str:
    return (await contract.submit_run(RunSubmission(workflow_slug=slug, **options))).run_id


async def saved(contract: Backend, run_id: str, slug: str = "legacy", *, available_at: int = 1, **options: Any) -> None:
    """A run without a plan with one scheduled step."""
    await contract.save_run_submitted(slug, run_id, version_id="v", available_at=1)
    await contract.save_step_scheduled(
        slug, run_id, "a", available_at=available_at, reason="initial", attempt_number=1, **options
    )


async def test_defaults_of_a_submission(contract: Contract) -> None:
    await contract.register_plan(ONE)
    result = await contract.submit_run(RunSubmission(workflow_slug="flow", input={"n": 1}, tags=("eu",), timeout=10**9))
    assert result.is_new
    state = await contract.get_run(result.run_id)
    assert state is not None
    assert (state.priority, state.status, state.input, state.timeout) == (0, "pending", '{"n":1}', 10**9)
    assert state.available_at == state.created_at
    assert await contract.is_step_claimable("flow", result.run_id, "a")
    assert await contract.list_active_workflows() == ["flow"]


async def test_a_key_gives_the_first_run_also_at_once(parted: Contract) -> None:
    await parted.register_plan(ONE)
    submission = RunSubmission(workflow_slug="flow", idempotency_key="k")
    results = await asyncio.gather(*(parted.submit_run(submission) for _ in range(50)))
    assert len({result.run_id for result in results}) == 1
    assert sum(result.is_new for result in results) == 1


async def test_refused_submissions_write_nothing(contract: Contract) -> None:
    await contract.register_plan(plan(step("a"), input_schema=SCHEMA, input_required=True))
    before = await snapshot(contract)
    with pytest.raises(WorkflowNotFound):
        await submit(contract, "other")
    with pytest.raises(InvalidInput) as wrong:
        await submit(contract, input={"who": {"age": "old"}})
    assert [path for path, _ in wrong.value.problems] == ["who.age"]
    with pytest.raises(InvalidInput, match="required"):
        await submit(contract)
    for options in ({"priority": 101}, {"run_id": "a b"}, {"idempotency_key": ""}, {"tags": ("a b",)}):
        with pytest.raises(InvalidArgument):
            await submit(contract, input={"who": {}}, **options)
    assert await snapshot(contract) == before


async def test_an_id_in_use_is_refused(contract: Contract) -> None:
    await contract.register_plan(ONE)
    assert await submit(contract, run_id="mine") == "mine"
    with pytest.raises(RunExists):
        await submit(contract, run_id="mine")


async def test_due_steps_by_priority_then_time(contract: Contract) -> None:
    await saved(contract, "r1", available_at=20)
    await saved(contract, "r2", available_at=10)
    await saved(contract, "r3", available_at=30, priority=5)
    await saved(contract, "r4", "other", available_at=5, priority=-5)
    await saved(contract, "later", available_at=FAR)
    assert [found.run_id for found in await contract.list_scheduled_steps()] == ["r3", "r2", "r1", "r4"]
    assert await contract.list_scheduled_steps(limit=1) == [("legacy", "r3", "a")]
    assert [found.run_id for found in await contract.list_scheduled_steps(20)] == ["r2", "r1", "r4"]
    assert await contract.list_scheduled_steps(workflow_slug="other") == [("other", "r4", "a")]
    assert len(await contract.list_scheduled_steps(FAR)) == 5
    assert await contract.list_scheduled_steps(workflow_slug="none") == []
    assert not await contract.is_step_claimable("legacy", "later", "a")


async def test_due_steps_of_all_partitions(parted: Contract) -> None:
    for n in range(20):
        await saved(parted, f"r{n}", available_at=100 - n, priority=n % 2)
    due = [int(found.run_id[1:]) for found in await parted.list_scheduled_steps(limit=15)]
    assert due == [*range(19, 0, -2), *range(18, 8, -2)]


@pytest.mark.parametrize(
    "options", [{"available_before": "now"}, {"workflow_slug": "a b"}, {"limit": -1}, {"limit": True}], ids=str
)
async def test_wrong_filters_are_refused(contract: Contract, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        await contract.list_scheduled_steps(**options)


async def test_a_claim_has_what_the_step_needs(contract: Contract) -> None:
    await contract.register_plan(CHAIN)
    run_id = await submit(contract, input=7)
    first = await contract.claim_scheduled_step(
        "flow", run_id, "a", "w1", dependencies=[], slot_index=0, worker_concurrency=4
    )
    assert first is not None
    assert (first.input, first.attempt_number, dict(first.outputs)) == ("7", 1, {})
    await contract.complete_step(first, '"out"')
    second = await contract.claim_scheduled_step("flow", run_id, "b", "w1", dependencies=["a"])
    assert second is not None
    assert second.outputs == {"a": '"out"'}
    assert second.lease > first.lease
    starts = [event.to_wire() for event in await contract.load_events("flow", run_id, types=["StepStarted"])]
    assert [start["dependencies"] for start in starts] == [[], ["a"]]
    assert (starts[0]["slotIndex"], starts[0]["workerConcurrency"]) == (0, 4)
    await contract.complete_step(second, "1")


async def test_a_claim_of_a_run_without_a_plan(contract: Contract) -> None:
    await saved(contract, "r1")
    await contract.save_step_complete("legacy", "r1", "b", ["x" * 100], duration_us=1, attempt_number=1)
    claim = await contract.claim_scheduled_step("legacy", "r1", "a", "w1", dependencies=["b", "c"])
    assert claim is not None
    assert claim.outputs == {"b": '["' + "x" * 100 + '"]'}
    (start,) = await contract.load_events("legacy", "r1", types=["StepStarted"])
    assert start.to_wire()["dependencies"] == ["b", "c"]


async def test_one_of_many_gets_the_step(contract: Contract) -> None:
    await contract.register_plan(ONE)
    run_id = await submit(contract)
    claims = await asyncio.gather(
        *(contract.claim_scheduled_step("flow", run_id, "a", f"w{n}", dependencies=[]) for n in range(30))
    )
    assert sum(claim is not None for claim in claims) == 1
    assert not await contract.is_step_claimable("flow", run_id, "a")


async def test_what_cannot_be_claimed(contract: Contract) -> None:
    await saved(contract, "later", available_at=FAR)
    for run_id, name in (("later", "a"), ("later", "b"), ("no-such-run", "a")):
        assert await contract.claim_scheduled_step("legacy", run_id, name, "w1", dependencies=[]) is None
        assert not await contract.is_step_claimable("legacy", run_id, name)


@pytest.mark.parametrize(
    "options",
    [
        {"worker_id": ""},
        {"dependencies": "a"},
        {"dependencies": ["a b"]},
        {"slot_index": -1},
        {"worker_concurrency": 0},
    ],
    ids=str,
)
async def test_wrong_arguments_of_a_claim(contract: Contract, options: dict[str, Any]) -> None:
    await saved(contract, "r1")
    with pytest.raises(InvalidArgument):
        await contract.claim_scheduled_step("legacy", "r1", "a", **{"worker_id": "w", "dependencies": [], **options})
    assert await contract.is_step_claimable("legacy", "r1", "a")


async def test_a_cancelled_run_has_nothing_due(contract: Contract) -> None:
    await contract.register_plan(PAIR)
    run_id = await submit(contract)
    await contract.cancel_run(run_id)
    assert await contract.list_scheduled_steps() == []
    assert not await contract.is_step_claimable("flow", run_id, "a")
    assert await contract.claim_scheduled_step("flow", run_id, "a", "w1", dependencies=[]) is None


async def test_stale_steps_are_taken_back_from_all_partitions(parted: Contract) -> None:
    await parted.register_plan(ONE)
    runs = [await submit(parted) for _ in range(12)]
    for run_id in runs:
        assert await parted.claim_scheduled_step("flow", run_id, "a", "w1", dependencies=[])
    assert await parted.reclaim_stale_steps(60 * SECOND, "r") == []
    for partition in range(4):
        await travel(parted, 61 * SECOND, partition)
    await parted.save_step_heartbeat("flow", runs[0], "a", "w1", 1)
    taken = await parted.reclaim_stale_steps(60 * SECOND, "r")
    assert sorted(found.run_id for found in taken) == sorted(runs[1:])
    assert {(found.workflow_slug, found.step_id, found.attempt_number, found.worker_id) for found in taken} == {
        ("flow", "a", 1, "w1")
    }
    assert await parted.reclaim_stale_steps(60 * SECOND, "r") == []


async def test_a_step_without_a_policy_is_scheduled_again(contract: Contract) -> None:
    await saved(contract, "r1")
    assert await contract.claim_scheduled_step("legacy", "r1", "a", "w1", dependencies=[])
    (taken,) = await contract.reclaim_stale_steps(0, "r")
    assert (taken.workflow_slug, taken.run_id) == ("legacy", "r1")
    (record,) = await contract.load_run("legacy", "r1")
    assert record.status == "running"  # the record knows no schedule
    assert len(await contract.list_scheduled_steps(FAR)) == 1


@pytest.mark.parametrize("threshold", [-1, "x", True, None])
async def test_a_wrong_threshold_is_refused(contract: Contract, threshold: Any) -> None:
    with pytest.raises(InvalidArgument, match="stale_threshold_us"):
        await contract.reclaim_stale_steps(threshold, "r")
    with pytest.raises(InvalidArgument, match="reclaimed_by"):
        await contract.reclaim_stale_steps(1, "")


def test_output_paths_are_distinct_and_below_the_spool(settings: Any) -> None:
    contract = Contract(settings)
    spool = settings.home.absolute() / "spool"
    executions = [
        ("flow", "r1", "a", 1), ("flow", "r2", "a", 1), ("flow", "r1", "b", 1), ("flow", "r1", "a", 2), ("flow", "r1", "a", 1, 7),
        ("flow", "..", "a", 1), ("flow", "r1", "../a", 1), ("flow", "r1", "a/1", 1), ("flow", ".", "a", 1), ("..", "r1", "a", 1),
    ]  # fmt: skip
    paths = [contract.get_step_output_path(*execution) for execution in executions]
    assert len(set(paths)) == len(paths)
    for path in paths:
        assert path.is_absolute()
        assert path.resolve().is_relative_to(spool.resolve())
    for wrong in (
        ("flow", "/etc", "a", 1),
        ("flow", "r1", "/a", 1),
        ("flow", "r1", "a", 0),
        ("flow", "r1", "a", 1, -1),
    ):
        with pytest.raises(InvalidArgument):
            contract.get_step_output_path(*wrong)


async def test_ready_says_whether_claims_can_be_served(contract: Contract) -> None:
    assert await contract.backend_ready()
    meta = contract.partitions[0].meta
    await contract.client.rename(meta, meta + ":away")
    assert not await contract.backend_ready()
    await contract.client.rename(meta + ":away", meta)
    assert await contract.backend_ready()
