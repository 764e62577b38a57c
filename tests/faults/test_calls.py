"""Calls that are cancelled, crowd each other out, or come from odd processes: no reply is ever read by another call."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from redisflow import Client, Reclaimer, Settings, StepContext, Worker, Workflow
from redisflow.model.errors import RedisflowError
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.harness import ends_once, has, is_running, worker_process
from tests.faults.proxy import PASS, SWALLOW, Proxy
from tests.flows_worker import brisk, held


@pytest.fixture
async def proxy(server: TestServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket, Path(server.folder) / "calls.sock") as running:
        yield running


async def test_cancelled_calls_leave_no_reply_for_others(settings: Settings, proxy: Proxy) -> None:
    chance = random.Random(1)
    flow = Workflow("echo", input=str)

    @flow.step
    async def nothing(input: str) -> None: ...

    async with Client(settings=settings.model_copy(update={"url": proxy.url})) as client:
        runs = await client.submit_many(flow, [f"input {n}" for n in range(50)])
        whole = 0

        async def look(number: int) -> None:
            nonlocal whole
            state = await client.status(runs[number].id)
            assert state.input == f'"input {number}"'
            with suppress(RedisflowError):
                again = await client.submit(flow, f"late {number}", key=f"key {number}")
                assert (await again.status()).input == f'"late {number}"'
            whole += 1

        for _ in range(60):
            tasks = [asyncio.create_task(look(chance.randrange(50))) for _ in range(30)]
            if chance.random() < 0.3:
                proxy.hold()
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() / 200)
            for task in chance.sample(tasks, 20):
                task.cancel()
            proxy.let_go()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                assert outcome is None or isinstance(outcome, asyncio.CancelledError), outcome
        assert whole >= 600
        for number in range(50):
            await look(number)
        await assert_consistent(client.backend)


async def test_a_line_that_falls_silent_is_given_up(
    settings: Settings, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that is only quiet for as long, and a call that was lost goes out again on the next line."""
    monkeypatch.setattr("redisflow.backend.call_line.ANSWER_WITHIN", 0.3)
    async with Client(settings=settings.model_copy(update={"url": proxy.url})) as client:
        first = await client.submit(brisk, 1)
        line = client.backend.server._line
        assert line is not None
        channel = line._channel
        await eventually(lambda: line._watch is None)  # nothing was awaited when it looked
        proxy.rule = lambda _: SWALLOW
        lost = [asyncio.create_task(client.submit(brisk, n)) for n in range(3)]
        await eventually(lambda: proxy.dropped > 0)
        proxy.rule = lambda _: PASS
        runs = await asyncio.gather(*lost)
        assert line._channel is not channel
        assert client.backend.server.retries > 0
        assert (await client.runs())[1] == len({first.id, *(run.id for run in runs)}) == 4


async def test_more_calls_at_once_than_connections(settings: Settings) -> None:
    async with Client(settings=settings) as client:
        run = await client.submit(brisk, 1)
        pool = client.backend.client.connection_pool
        assert pool.max_connections < 1000
        states = await asyncio.gather(*(client.status(run.id) for _ in range(1000)))
        assert {state.run_id for state in states} == {run.id}
        runs = await asyncio.gather(*(client.submit(brisk, number) for number in range(1000)))
        assert len({run.id for run in runs}) == 1000
        async with Worker(client, [brisk]):
            assert await asyncio.gather(*(run.result(timeout=30) for run in runs)) == [2 * n + 1 for n in range(1000)]
        await assert_consistent(client.backend)


async def test_a_worker_that_comes_back_under_its_old_id(quick: Client, reclaimer: Reclaimer) -> None:
    """An id is a name for people: each process is another worker, and what its predecessor held is taken back as from anyone."""
    run = await quick.submit(held, "")
    with worker_process(quick.settings, WORKER_ID="twin") as old:
        await eventually(lambda: is_running(run), 20)
        old.send_signal(signal.SIGSTOP)
        async with Worker(quick, [held, brisk], worker_id="twin") as new:
            assert await (await quick.submit(brisk, 1)).result(timeout=10) == 3
            assert await run.result(timeout=10) == 2
            old.send_signal(signal.SIGCONT)
            more = await quick.submit_many(brisk, range(50))
            assert await asyncio.gather(*(each.result(timeout=10) for each in more)) == [2 * n + 1 for n in range(50)]
            started = [
                event for event in await quick.backend.load_wire_events(run.id) if event["type"] == "StepStarted"
            ]
            names = [event["workerId"] for event in started]
            assert names[1] == new.id != names[0]
            assert all(name.startswith("twin.") for name in names)
        old.terminate()
        old.wait(10)
    await ends_once(quick, [run], 1)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_whose_clock_is_off_by_an_hour(quick: Client, reclaimer: Reclaimer, hours: int) -> None:
    runs = await quick.submit_many(brisk, range(20))
    with worker_process(quick.settings, CLOCK_OFF=str(3600 * hours)):
        assert await asyncio.gather(*(run.result(timeout=20) for run in runs)) == [2 * n + 1 for n in range(20)]
        delayed = await quick.submit(brisk, 1, delay="300ms")
        assert await delayed.result(timeout=20) == 3
    await ends_once(quick, [*runs, delayed], 2)
    state = await delayed.status()
    assert state.completed_at is not None
    assert state.started_at is not None
    assert 0 <= state.started_at - state.available_at < 5_000_000
    events = await quick.backend.load_wire_events(delayed.id)
    assert all(0 <= event["durationUs"] < 5_000_000 for event in events if "durationUs" in event)
    assert not any([await has(quick, run, "StepReclaimed") for run in runs])


@pytest.mark.slow
async def test_two_versions_of_a_workflow_side_by_side(client: Client) -> None:
    """A rolling deploy: each run keeps the plan it was submitted with, and a step goes to a worker that has its code."""
    old, new = Workflow("rolling", input=int, output=int), Workflow("rolling", input=int, output=int)

    async def first(number: int) -> int:
        return number

    async def second(first: int) -> int:
        return first + 1

    async def extra(first: int) -> int:
        return first * 100

    async def last(first: int, extra: int) -> int:
        return first + extra

    old.step(first)
    old.step(second, export=True)
    new.step(first)
    new.step(extra)
    new.step(last, export=True)
    async with Worker(client, [old], worker_id="old"), Worker(client, [new], worker_id="new"):
        runs = []
        for number in range(40):
            runs.append(await client.submit(old if number % 2 else new, number))
        results = await asyncio.gather(*(run.result(timeout=60) for run in runs))
    assert results == [number + 1 if number % 2 else 101 * number for number in range(40)]


async def test_a_step_that_is_claimed_while_the_worker_drains_is_handed_back(
    client: Client, settings: Settings, proxy: Proxy
) -> None:
    flow, begun = Workflow("late-claim", output=int), []

    @flow.step(export=True)
    async def work(ctx: StepContext) -> int:
        begun.append(ctx.attempt)
        return ctx.attempt

    async with Client(settings=settings.model_copy(update={"url": proxy.url})) as far:
        worker = Worker(far, [flow])
        await worker.start()
        await eventually(lambda: worker.asleep)
        proxy.hold()
        run = await client.submit(flow)
        await eventually(lambda: is_running(run))  # the server has claimed; the answer is on its way
        draining = asyncio.create_task(worker.drain())
        await eventually(lambda: worker._dispatcher.draining)
        proxy.let_go()
        await draining
    assert begun == []
    wire = await client.backend.load_wire_events(run.id)
    assert (wire[-1]["type"], wire[-1]["reason"], wire[-1]["attemptNumber"]) == ("StepScheduled", "retry", 1)
    async with Worker(client, [flow]):
        assert await run.result(timeout=10) == 1
