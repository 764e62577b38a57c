"""Imported runs that had not ended: they go on where their plan is at hand, and are told as history only where it is not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from redisflow import Client, Retry, Skip, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.transfer import export_runs, import_runs
from redisflow.backend.types import Submission
from redisflow.model.errors import InvalidInput
from redisflow.model.workflow import Plan
from redisflow.settings import Settings
from tests.conftest import assert_consistent
from tests.flows import (
    CHAIN,
    ONE,
    SECOND,
    claim,
    complete,
    fail,
    fan_out,
    history,
    statuses,
    submit,
    travel,
    typed,
)

Lines = list[dict[str, Any]]


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[Client]:
    """Another namespace, of four partitions."""
    moved = settings.model_copy(update={"namespace": f"{settings.namespace}b", "partitions": 4})
    async with Client(settings=moved) as opened:
        yield opened
        await assert_consistent(opened.backend)


async def exported(backend: RedisBackend, *run_ids: str) -> Lines:
    return [wire async for wire in export_runs(backend, run_ids)]


def dumped(wires: Lines, *, plans: bool = True) -> list[str]:
    return [json.dumps({name: value for name, value in wire.items() if plans or name != "plan"}) for wire in wires]


async def take_back(backend: RedisBackend) -> int:
    """A round of the reclaimer over every partition, after the stale threshold; how many steps it took."""
    taken = 0
    for partition in range(len(backend.partitions)):
        await travel(backend, 31 * SECOND, partition)
        taken += len((await backend.reclaim_round(partition, threshold_us=30 * SECOND, reclaimed_by="r1")).reclaimed)
    return taken


def small_flow() -> Workflow[int, Any]:
    """a -> b -> d, a -> c -> d; c is skipped for an odd input."""
    flow = Workflow("small", input=int)

    @flow.step
    async def a(input: int) -> int:
        return input + 1

    @flow.step(retry=Retry(attempts=2, delay="1ms"))
    async def b(a: int) -> int:
        return a * 10

    @flow.step
    async def c(input: int) -> int:
        if input % 2:
            raise Skip("odd")
        return 100

    @flow.step(export=True)
    async def d(b: int, c: int = 0) -> int:
        return b + c

    return flow


async def in_every_state(backend: RedisBackend, plan: Plan) -> dict[str, str]:
    """Runs of the small flow by what became of them, all with the input 2."""
    names = ("fresh", "waiting", "running", "part", "retrying", "finished", "cancelled", "failed")
    found = {name: await submit(backend, plan, input="2") for name in names if name != "waiting"}
    found["waiting"] = await submit(backend, plan, input="2", delay_us=3600 * SECOND, priority=5)
    await claim(backend, found["running"], "a", worker="gone")
    await backend.complete_step(await claim(backend, found["part"], "a"), "3")
    await claim(backend, found["part"], "c", worker="gone")
    for name in ("retrying", "failed"):
        await backend.complete_step(await claim(backend, found[name], "a"), "3")
        await fail(backend, await claim(backend, found[name], "b", worker="first"))
    await travel(backend, SECOND)
    await claim(backend, found["retrying"], "b", worker="gone")
    await fail(backend, await claim(backend, found["failed"], "b"))
    for name, output in (("a", "3"), ("b", "30"), ("c", "100"), ("d", "130")):
        claimed = await claim(backend, found["finished"], name)
        await backend.complete_step(claimed, output, export_output=name == "d")
    await backend.cancel_run(found["cancelled"])
    return found


async def test_live_runs_go_on_in_another_namespace(client: Client, other: Client) -> None:
    flow = small_flow()
    runs = await in_every_state(client.backend, flow.plan)
    report = await import_runs(other.backend, dumped(await exported(client.backend)))
    assert set(report.live) == {runs[name] for name in ("fresh", "waiting", "running", "part", "retrying")}
    assert report.history_only == ()
    for run_id in runs.values():
        assert await other.backend.get_run(run_id) == await client.backend.get_run(run_id)
        assert await other.backend.load_step_states(run_id) == await client.backend.load_step_states(run_id)
    for partition in range(4):  # what waits for its time does so here too
        await travel(other.backend, 3600 * SECOND, partition)
    assert await take_back(other.backend) == 3
    crashed = await typed(other.backend, runs["retrying"], "StepReclaimed")
    assert [(event.original_worker_id, event.attempt_number) for event in crashed] == [("gone", 2)]
    await other.backend.retry_run(runs["failed"])
    async with Worker(other, [flow]):
        for name, run_id in runs.items():
            if name != "cancelled":
                assert await other.run(run_id).result(timeout=20) == 130, name
    assert (await other.backend.get_run(runs["cancelled"])).status == "cancelled"  # type: ignore[union-attr]
    assert (await history(other.backend, runs["part"])).count("StepStarted a") == 1  # what had ended is not run again


async def test_a_step_that_ran_is_held_until_the_stale_threshold(backend: RedisBackend, other: Client) -> None:
    run_id = await submit(backend, CHAIN)
    await claim(backend, run_id, "a", worker="gone")
    await import_runs(other.backend, dumped(await exported(backend)))
    partition = other.backend.partition(run_id)
    await travel(other.backend, 29 * SECOND, partition)
    round_ = await other.backend.reclaim_round(partition, threshold_us=30 * SECOND, reclaimed_by="r1")
    assert (round_.reclaimed, await statuses(other.backend, run_id)) == ((), {"a": "running"})
    workers = await other.backend.get_active_workers()
    assert [(worker.worker_id, worker.currently_running_steps) for worker in workers.workers] == [("gone", 1)]
    assert await take_back(other.backend) == 1
    await complete(other.backend, run_id, "a", "b")
    assert (await history(other.backend, run_id))[-1] == "WorkflowCompleted"


async def test_what_was_ready_but_not_scheduled_follows(backend: RedisBackend, other: Client) -> None:
    """Exported while the last of 520 roots still waited for their turn to be scheduled."""
    run_id = await submit(backend, fan_out(520))
    assert len(await statuses(backend, run_id)) == 500
    await import_runs(other.backend, dumped(await exported(backend)))
    partition = other.backend.partition(run_id)
    for _ in range(3):  # rounds of the reclaimer, some hundred steps each
        await other.backend.reclaim_round(partition, threshold_us=30 * SECOND, reclaimed_by="r1")
    assert set((await statuses(other.backend, run_id)).values()) == {"scheduled"}
    assert len(await statuses(other.backend, run_id)) == 520


async def test_a_copy_of_an_imported_run_stands_as_it_is(backend: RedisBackend, other: Client) -> None:
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a", "b")
    await import_runs(other.backend, dumped(await exported(backend)))
    await other.backend.copy_workflow_events("flow", run_id, "copy.x", exclude_terminal=True)
    assert await other.backend.client.zcard(other.backend.keys_of("copy.x").expand) == 0
    await other.backend.cancel_run("copy.x")


@pytest.mark.parametrize("known", ["submitted", "registered"])
async def test_the_plan_may_be_here_already(backend: RedisBackend, other: Client, known: str) -> None:
    run_id = await submit(backend, CHAIN)
    if known == "submitted":
        await other.backend.submit(CHAIN, [Submission()])
    else:
        await other.backend.register_plan(CHAIN)
    report = await import_runs(other.backend, dumped(await exported(backend), plans=False))
    assert (report.live, report.history_only) == ((run_id,), ())
    await complete(other.backend, run_id, "a", "b")
    assert (await history(other.backend, run_id))[-1] == "WorkflowCompleted"


async def test_without_a_plan_a_live_run_is_history_only(backend: RedisBackend, other: Client) -> None:
    live, ended = await submit(backend, CHAIN), await submit(backend, ONE)
    await complete(backend, ended, "a")
    report = await import_runs(other.backend, dumped(await exported(backend), plans=False))
    assert (report.live, report.history_only) == ((live,), (live,))
    assert "flow" in await other.backend.list_active_workflows()
    assert (await other.backend.list_runs())[1] == 2


async def test_only_the_first_run_of_a_version_carries_the_plan(backend: RedisBackend) -> None:
    await backend.submit(CHAIN, [Submission()] * 3)
    await backend.submit(ONE, [Submission()] * 2)
    carried = [wire["plan"] for wire in await exported(backend) if "plan" in wire]
    assert [Plan.model_validate(plan) for plan in carried] == [CHAIN, ONE]


async def test_a_plan_that_is_not_the_versions_is_refused(backend: RedisBackend, other: Client) -> None:
    await submit(backend, CHAIN)
    wires = await exported(backend)
    plan = wires[0]["plan"]
    for wrong, message in (
        ({**plan, "on_error": "finish"}, "plan: is sha256:"),
        ({**plan, "slug": "other"}, "of 'other', not sha256:"),
        ({**plan, "steps": []}, "plan.steps: "),
        ("text", "without the field the run comes in as history only"),
    ):
        with pytest.raises(InvalidInput) as told:
            await import_runs(other.backend, dumped([{**wires[0], "plan": wrong}, *wires[1:]]))
        assert message in str(told.value)
        assert "line 1 " in str(told.value)
    assert (await other.backend.list_runs())[1] == 0
