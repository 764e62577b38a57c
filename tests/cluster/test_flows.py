"""A namespace over three nodes: what works on one server works here, and nobody notices where a run lies."""

from __future__ import annotations

import asyncio

import pytest

from redisflow import Client, Reclaimer, RunFailed, Settings, StepContext, Worker, Workflow
from redisflow.backend.types import Submission
from redisflow.model.errors import RunCancelled, RunNotFound
from tests.clusters import TestCluster
from tests.conftest import eventually, free_port

sums = Workflow("sums", input=int, output=int)
moody = Workflow("moody", input=str, output=str)
mood = {"well": False}


@sums.step
async def double(number: int) -> int:
    return number * 2


@sums.step(export=True)
async def increment(double: int) -> int:
    return double + 1


@moody.step
async def first(name: str, ctx: StepContext) -> int:
    return ctx.attempt


@moody.step(export=True)
async def second(first: int) -> str:
    if not mood["well"]:
        raise ValueError("not in the mood")
    return f"{first} and done"


@pytest.fixture(autouse=True)
def bad_mood() -> None:
    """As it is before a test."""
    mood["well"] = False


async def test_many_runs_over_all_nodes(client: Client, three_nodes: TestCluster) -> None:
    async with Worker(client, [sums], concurrency=20) as one, Worker(client, [sums], concurrency=20) as other:
        runs = await client.submit_many(sums, range(240))
        assert await asyncio.gather(*(run.result(timeout=30) for run in runs)) == [2 * n + 1 for n in range(240)]
        assert one.running == other.running == 0
    assert {client.backend.partition(run.id) for run in runs} == set(range(12))
    listed, total = await client.runs(status=["completed"], limit=None)
    assert total == 240
    assert {state.run_id for state in listed} == {run.id for run in runs}
    assert [state.created_at for state in listed] == sorted((state.created_at for state in listed), reverse=True)
    summary = await client.backend.get_analytics_summary()
    assert summary.success_rate.successful_runs == 240
    workers = await client.backend.get_active_workers()
    assert len(workers.workers) == 2


async def test_an_idle_worker_is_woken_on_every_node(client: Client) -> None:
    async with Worker(client, [sums]) as worker:
        for partition in range(12):
            await eventually(lambda: worker.asleep)
            run_id = next(
                f"r{n}.{partition}" for n in range(1000) if client.backend.partition(f"r{n}.{partition}") == partition
            )
            run = await client.submit(sums, 1, run_id=run_id)
            began = asyncio.get_running_loop().time()
            assert await run.result(timeout=10) == 3
            took = asyncio.get_running_loop().time() - began
            assert took < 0.7, f"partition {partition} was found by looking, not by a wake-up: {took:.2f} s"


async def test_a_key_is_one_run_wherever_it_lies(client: Client) -> None:
    first_run, *others = await asyncio.gather(*(client.submit(sums, 5, key="once") for _ in range(5)))
    assert {run.id for run in others} == {first_run.id}
    elsewhere = await client.submit(sums, 5, key="elsewhere", run_id="of-my-own")
    again = await client.submit(sums, 5, key="elsewhere")
    assert again.id == elsewhere.id == "of-my-own"


async def test_a_run_is_failed_retried_rerun_cancelled_and_deleted(client: Client) -> None:
    async with Worker(client, [moody]):
        run = await client.submit(moody, "x", tags=["eu"])
        with pytest.raises(RunFailed, match="not in the mood"):
            await run.result(timeout=10)
        mood["well"] = True
        await client.retry(run.id)
        assert await run.result(timeout=10) == "1 and done"
        again = await client.rerun(run.id, "second")
        assert await again.result(timeout=10) == "1 and done"
    waiting = await client.submit(moody, "y", delay="1h")
    assert (await waiting.cancel()).cancelled
    with pytest.raises(RunCancelled):
        await waiting.result(timeout=5)
    assert {state.run_id for state in (await client.runs(tags=["eu"]))[0]} == {run.id, again.id}
    assert await client.backend.delete_run(run.id)
    with pytest.raises(RunNotFound):
        await run.status()


async def test_steps_of_a_dead_worker_are_taken_back_on_every_node(client: Client) -> None:
    backend = client.backend
    await backend.register_plan(sums.plan)
    partitions = range(len(backend.partitions))
    of = {backend.partition(f"route{n}.run"): f"route{n}.run" for n in range(1000)}
    wanted = [Submission(input="1", run_id=of[partition]) for partition in partitions]
    runs = [result.run_id for result in await backend.submit(sums.plan, wanted)]
    for run_id in runs:
        assert await backend.claim_step(run_id, "double", "dead.worker")
    sidecar = Reclaimer(client)
    upkeep = asyncio.create_task(sidecar.run())
    async with Worker(client, [sums]):
        assert await asyncio.gather(*(client.result(run_id, timeout=20) for run_id in runs)) == [3] * 12
    sidecar.stop()
    await upkeep


async def test_nodes_of_the_url_that_are_gone_are_passed_over(three_nodes: TestCluster, spread: Settings) -> None:
    url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{three_nodes.nodes[1].port}"
    async with Client(settings=spread.model_copy(update={"url": url})) as client, Worker(client, [sums]):
        assert await (await client.submit(sums, 1)).result(timeout=10) == 3
