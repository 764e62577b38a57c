"""Steps that come with the wake-up: who gets them, what a lost message costs, and how a worker leaves."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from redisflow import Client, Run, Settings, Submission, Worker, Workflow
from redisflow.backend.listener import Listener
from redisflow.backend.turns import TurnLink
from tests.conftest import assert_consistent, eventually

flow = Workflow("light", input=int, output=int)


@flow.step(export=True)
async def touch(number: int) -> int:
    return number


async def wire_of(client: Client, run: Run[Any]) -> list[dict[str, Any]]:
    return await client.backend.load_wire_events(run.id)


async def was_handed_over(client: Client, run: Run[Any]) -> bool:
    """It was claimed by the call that submitted it, whose events follow each other by a µs."""
    at = {event["type"]: event["timestampUs"] for event in await wire_of(client, run)}
    return bool(at["StepStarted"] - at["RunSubmitted"] == 4)


async def offers(worker: Worker) -> None:
    await eventually(lambda: all(link.offered is not None for link in worker.links))


async def deaf(worker: Worker, listener: Listener, link: TurnLink) -> None:
    """Wake-ups for the worker still find a listener, but not itself: they are lost on the way."""
    channel = worker.backend.partitions[link.partition].wake_channel(worker.id)
    await listener.subscribe(channel, lambda _: None)
    await worker.backend.listener.drop(channel)


@pytest.mark.parametrize("concurrency", [1, 100])
async def test_an_idle_worker_is_handed_each_run(client: Client, concurrency: int) -> None:
    async with Worker(client, [flow], concurrency=concurrency) as worker:
        for number in range(5):
            await offers(worker)
            run = await client.submit(flow, number)
            assert await run.result(timeout=10) == number
            assert await was_handed_over(client, run)


async def test_every_partition_hands_over(settings: Settings) -> None:
    async with Client(settings=settings.model_copy(update={"partitions": 3})) as client:
        async with Worker(client, [flow], concurrency=100) as worker:
            for number in range(9):
                await offers(worker)
                run = await client.submit_many(flow, [Submission(number, run_id=f"r{number}")])
                assert await run[0].result(timeout=10) == number
                assert await was_handed_over(client, run[0])
        await assert_consistent(client.backend)


async def test_few_slots_are_kept_for_all_partitions(settings: Settings) -> None:
    async with Client(settings=settings.model_copy(update={"partitions": 2})) as client:
        async with Worker(client, [flow], concurrency=3) as worker:
            await eventually(lambda: worker.asleep)
            assert [link.offered for link in worker.links] == [None, None]
        await assert_consistent(client.backend)


async def test_a_lost_message_costs_a_second(client: Client, settings: Settings) -> None:
    async with Client(settings=settings) as other, Worker(client, [flow]) as worker:
        await offers(worker)
        await deaf(worker, other.backend.listener, worker.links[0])
        run = await client.submit(flow, 7)
        assert await run.result(timeout=10) == 7
        assert await was_handed_over(client, run)
        assert [event["type"] for event in await wire_of(client, run)].count("StepStarted") == 1


@pytest.mark.parametrize("cancelled", [False, True])
async def test_slots_are_those_of_the_events_whatever_was_lost(
    client: Client, settings: Settings, cancelled: bool
) -> None:
    slow, opened = Workflow("slow"), asyncio.Event()

    @slow.step
    async def hold() -> None:
        await opened.wait()

    async with Client(settings=settings) as other, Worker(client, [slow], concurrency=3) as worker:
        await offers(worker)
        await deaf(worker, other.backend.listener, worker.links[0])
        lost = await client.submit(slow)
        if cancelled:
            await lost.cancel()
        runs = [await client.submit(slow) for _ in range(2)] + [lost] * (not cancelled)
        await eventually(lambda: worker.running == len(runs))
        slots = {job.run.decode(): job.slot for job in worker._all_jobs()}
        opened.set()
        for run in runs:
            await run.result(timeout=10)
            started = [event for event in await wire_of(client, run) if event["type"] == "StepStarted"]
            assert [event["slotIndex"] for event in started] == [slots[run.id]]
        await offers(worker)
        assert sorted([*worker._dispatcher._free, worker.links[0].offered]) == [0, 1, 2]


async def test_a_message_that_cannot_be_read_is_a_wake_up(client: Client) -> None:
    async with Worker(client, [flow]) as worker:
        await offers(worker)
        (link,) = worker.links
        assert not link.awaiting
        worker._on_wake(0, b"h\x93\xcf\x00of another version")
        assert link.awaiting


async def test_a_worker_that_leaves_gives_back_what_was_on_its_way(client: Client, settings: Settings) -> None:
    async with Client(settings=settings) as other:
        async with Worker(client, [flow]) as worker:
            await offers(worker)
            await deaf(worker, other.backend.listener, worker.links[0])
            run = await client.submit(flow, 7)
        types = [event["type"] for event in await wire_of(client, run)]
        assert types[-2:] == ["StepStarted", "StepScheduled"]
        async with Worker(client, [flow]):
            assert await run.result(timeout=10) == 7


async def test_a_worker_that_leaves_withdraws_its_offer(client: Client) -> None:
    async with Worker(client, [flow]) as worker:
        await offers(worker)
        key = f"{client.backend.partitions[0].prefix}worker:{worker.id}"
        assert (await client.backend.client.hget(key, "hand")).startswith(b"o")
    assert await client.backend.client.hget(key, "hand") == b""


async def test_slots_are_not_exceeded_and_none_is_lost(client: Client) -> None:
    """Of workers with one slot, whose steps take a while."""
    busy, inside, most, opened = Workflow("busy"), [0], [0], asyncio.Event()

    @busy.step
    async def hold() -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        await opened.wait()
        inside[0] -= 1

    async with Worker(client, [busy], concurrency=1) as one, Worker(client, [busy], concurrency=1) as two:
        for count in (1, 1, 2, 1, 3, 1, 1, 5):
            opened.clear()
            runs = await asyncio.gather(*(client.submit(busy) for _ in range(count)))
            await eventually(lambda count=count: inside[0] == min(count, 2))
            opened.set()
            for run in runs:
                await run.result(timeout=10)
        assert most == [2]
        for worker in (one, two):
            await offers(worker)
            assert worker._dispatcher._free == []


async def test_workers_come_and_go_and_nothing_has_to_be_reclaimed(client: Client) -> None:
    runs: list[Run[int]] = []
    done, chance = asyncio.Event(), random.Random(7)

    async def submit() -> None:
        while not done.is_set():
            runs.append(await client.submit(flow, len(runs)))
            await asyncio.sleep(chance.random() * 0.004)

    submitting = asyncio.create_task(submit())
    for _ in range(25):
        async with Worker(client, [flow], concurrency=3):
            await asyncio.sleep(chance.random() * 0.05)
    done.set()
    await submitting
    async with Worker(client, [flow]):
        assert [await run.result(timeout=10) for run in runs] == [*range(len(runs))]
    for run in runs:
        types = [event["type"] for event in await wire_of(client, run)]
        assert types.count("StepStarted") == types.count("StepScheduled"), types
        assert "StepReclaimed" not in types
