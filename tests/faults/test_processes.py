"""Workers that die, freeze and wake; servers that vanish and come back. Real processes, real signals."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from redisflow import Client, Reclaimer, Run, Settings, StepContext, Worker, Workflow
from redisflow.backend.types import Submission
from redisflow.model.errors import NamespaceLost
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.harness import (
    SHORT,
    ends_once,
    has,
    is_calm,
    is_running,
    line_with_any,
    more_than,
    wire_of,
    worker_process,
)
from tests.flows_worker import brisk, gated, held

MARGIN = 1_000_000  # µs for a busy machine


async def test_a_killed_workers_step_runs_again_within_the_promised_time(quick: Client, reclaimer: Reclaimer) -> None:
    run = await quick.submit(held, "")
    with worker_process(quick.settings) as victim:
        await eventually(lambda: is_running(run), 20)
        victim.kill()
        victim.wait()
    async with Worker(quick, [held], worker_id="heir"):
        assert await run.result(timeout=10) == 2
    events = await wire_of(quick, run.id)
    reclaimed = next(event for event in events if event["type"] == "StepReclaimed")
    scheduled = events[events.index(reclaimed) + 1]
    promised = quick.settings.stale_after + quick.settings.reclaim_interval
    assert quick.settings.stale_after < reclaimed["staleDurationUs"] < promised + MARGIN
    assert (reclaimed["reclaimedBy"], reclaimed["attemptNumber"]) == ("sidecar", 1)
    assert (scheduled["type"], scheduled["reason"], scheduled["attemptNumber"]) == (
        "StepScheduled",
        "retry",
        2,
    )
    await ends_once(quick, [run], 1)


async def test_workers_are_killed_all_the_time_and_every_run_ends_once(quick: Client, reclaimer: Reclaimer) -> None:
    runs = await quick.submit_many(brisk, range(400))
    for _ in range(3):
        before = (await quick.runs(status=["completed"], limit=0))[1]
        with worker_process(quick.settings, concurrency=10) as victim:
            await eventually(lambda before=before: more_than(quick, before), 20)
            victim.kill()
            victim.wait()
    async with Worker(quick, [brisk]):
        assert await asyncio.gather(*(run.result(timeout=20) for run in runs)) == [2 * n + 1 for n in range(400)]
    await ends_once(quick, runs, 2)


async def test_a_frozen_workers_outcome_is_refused(quick: Client, reclaimer: Reclaimer, tmp_path: Path) -> None:
    go = tmp_path / "go"
    run = await quick.submit(gated, str(go))
    with worker_process(quick.settings) as zombie:
        await eventually(lambda: is_running(run), 20)
        zombie.send_signal(signal.SIGSTOP)
        await eventually(lambda: has(quick, run, "StepReclaimed"))
        go.touch()
        async with Worker(quick, [gated], worker_id="heir"):
            assert await run.result(timeout=10) == 2
        zombie.send_signal(signal.SIGCONT)
        refused = await asyncio.to_thread(line_with_any, zombie, ("not recorded", "stopping a step"))
        assert any(word in refused for word in ("RUN_ENDED", "STALE", "CONFLICT"))
        zombie.terminate()
        zombie.wait(10)
    await ends_once(quick, [run], 1)
    events = await wire_of(quick, run.id)
    assert events[-1]["type"] == "WorkflowCompleted"
    assert [event["attemptNumber"] for event in events if event["type"] == "StepCompleted"] == [2]


async def test_a_zombie_that_wakes_while_its_heir_still_runs(
    quick: Client, reclaimer: Reclaimer, tmp_path: Path
) -> None:
    flow = Workflow("gated", input=str, output=int)
    inside, leave = asyncio.Event(), asyncio.Event()

    async def watch(where: str, ctx: StepContext) -> int:
        inside.set()
        await leave.wait()
        return ctx.attempt

    flow.step(watch, export=True)
    go = tmp_path / "go"
    run = await quick.submit(gated, str(go))
    with worker_process(quick.settings) as zombie:
        await eventually(lambda: is_running(run), 20)
        zombie.send_signal(signal.SIGSTOP)
        await eventually(lambda: has(quick, run, "StepReclaimed"))
        async with Worker(quick, [flow], worker_id="heir"):
            await inside.wait()
            go.touch()
            zombie.send_signal(signal.SIGCONT)
            await asyncio.to_thread(line_with_any, zombie, ("not recorded", "stopping a step"))
            assert (await run.status()).status == "running"
            leave.set()
            assert await run.result(timeout=10) == 2
        zombie.terminate()
        zombie.wait(10)
    await ends_once(quick, [run], 1)


async def test_two_reclaimers_side_by_side_take_each_step_once(quick: Client) -> None:
    backend = quick.backend
    await backend.register_plan(held.plan)
    runs = [result.run_id for result in await backend.submit(held.plan, [Submission(input='""') for _ in range(150)])]
    for run_id in runs:
        assert await backend.claim_step(run_id, "hold", "dead.worker")
    sidecars = [Reclaimer(quick, name=name) for name in ("left", "right")]
    tasks = [asyncio.create_task(sidecar.run()) for sidecar in sidecars]
    try:
        async with Worker(quick, [held]):
            ended = await asyncio.gather(*(quick.result(run_id, timeout=20) for run_id in runs))
    finally:
        for sidecar in sidecars:
            sidecar.stop()
        await asyncio.gather(*tasks)
    assert ended == [2] * len(runs)
    for run_id in runs:
        types = Counter(event["type"] for event in await wire_of(quick, run_id))
        assert (types["StepReclaimed"], types["StepStarted"], types["StepCompleted"]) == (1, 2, 1)


# --- the server -----------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_under_load_loses_nothing(durable: TestServer, durably: Client) -> None:
    runs: list[Run[int]] = []
    async with Worker(durably, [brisk], concurrency=20):
        for round_ in range(3):
            submitting = [
                asyncio.create_task(durably.submit_many(brisk, range(first, first + 10)))
                for first in range(round_ * 100, round_ * 100 + 100, 10)
            ]
            await eventually(lambda round_=round_: more_than(durably, round_ * 60))
            durable.kill()
            await asyncio.to_thread(durable.start)
            for batch in await asyncio.gather(*submitting):
                runs += batch
        assert await asyncio.gather(*(run.result(timeout=30) for run in runs)) == [2 * n + 1 for n in range(300)]
    await ends_once(durably, runs, 2)
    assert (await durably.runs(limit=1))[1] == 300


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_an_outage_of_the_server_is_no_crash_of_the_workers(
    durable: TestServer, durably: Client, fault: str
) -> None:
    flow = Workflow("steady", output=int)
    inside, leave = asyncio.Semaphore(0), asyncio.Event()

    @flow.step(export=True)
    async def wait(ctx: StepContext) -> int:
        inside.release()
        await leave.wait()
        return ctx.attempt

    sidecar = Reclaimer(durably)
    upkeep = asyncio.create_task(sidecar.run())
    await eventually(lambda: is_calm(durably))
    async with Worker(durably, [flow]):
        runs = await durably.submit_many(flow, [None] * 5)
        for _ in runs:
            await inside.acquire()
        outage = 2.5 * durably.settings.stale_after / 1e6
        assert durable.process is not None
        if fault == "killed":
            durable.kill()
            await asyncio.sleep(outage)
            await asyncio.to_thread(durable.start)
        else:
            durable.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(outage)
            durable.process.send_signal(signal.SIGCONT)
        await eventually(lambda: is_calm(durably))  # rounds take steps back again from here on
        leave.set()
        assert [await run.result(timeout=10) for run in runs] == [1] * 5
    sidecar.stop()
    await upkeep
    for run in runs:
        assert not await has(durably, run, "StepReclaimed")


async def test_functions_are_flushed_under_load(settings: Settings, server: TestServer) -> None:
    flusher = server.client()
    async with Client(settings=settings.model_copy(update=SHORT)) as client:
        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        async with Worker(client, [brisk], concurrency=20):
            waiting: asyncio.Future[list[int]] = asyncio.gather(
                *[_submit_and_wait(client, number) for number in range(200)]
            )
            while not waiting.done():
                flusher.function_flush()
                await asyncio.sleep(0.002)
            assert await waiting == [2 * n + 1 for n in range(200)]
        sidecar.stop()
        await upkeep
        await ends_once(client, [client.run(state.run_id) for state in (await client.runs(limit=None))[0]], 2)
        await assert_consistent(client.backend)
    flusher.close()


async def _submit_and_wait(client: Client, number: int) -> int:
    return await (await client.submit(brisk, number)).result(timeout=30)


async def test_a_flushed_namespace_stops_the_worker(settings: Settings) -> None:
    server = TestServer()
    update = {"url": server.url, "retry_deadline": 300_000, "heartbeat_interval": 100_000}
    try:
        async with Client(settings=settings.model_copy(update=update)) as client:
            worker = Worker(client, [brisk], concurrency=5)
            life = asyncio.create_task(worker.run())
            await client.submit_many(brisk, range(500))
            await eventually(lambda: more_than(client, 20))
            flusher = server.client()
            flusher.flushall()
            with pytest.raises(NamespaceLost, match="flushed or replaced"):
                await asyncio.wait_for(life, 20)
            with pytest.raises(NamespaceLost):
                await client.submit(brisk, 1)
            left = flusher.keys("*")
            flusher.close()
            assert left == []  # nobody wrote into what was not theirs any more
    finally:
        server.close()
