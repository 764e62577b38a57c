"""Which step runs when and where: slots, priorities, queues, wake-ups, delays, cancellation, deploys."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client, RunCancelled, Settings, StepContext, Submission, Worker, Workflow
from tests.conftest import TestServer, assert_consistent, eventually, until
from tests.faults.proxy import Proxy


async def started_by(client: Client, run_id: str) -> list[str]:
    wire = await client.backend.load_wire_events(run_id)
    return [event["workerId"].partition(".")[0] for event in wire if event["type"] == "StepStarted"]


class Gate:
    """Counts the bodies inside; they leave when it opens."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.opened = asyncio.Event()

    async def enter(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.opened.wait()
            await asyncio.sleep(0)
        finally:
            self.inside -= 1


@pytest.mark.parametrize("slots", [1, 2, 5, 70])
async def test_all_slots_are_used_and_never_more(client: Client, slots: int) -> None:
    flow, gate = Workflow("slots"), Gate()

    @flow.step
    async def occupy() -> None:
        await gate.enter()

    async with Worker(client, [flow], concurrency=slots):
        runs = await client.submit_many(flow, [None] * (3 * slots))
        await eventually(lambda: gate.inside == slots)
        gate.opened.set()
        for run in runs:
            await run.result(timeout=10)
    assert gate.most == slots


async def test_threads_are_as_many_as_slots(client: Client) -> None:
    flow, lock, opened = Workflow("pool"), threading.Lock(), threading.Event()
    counts = {"inside": 0, "most": 0}

    @flow.step
    def occupy() -> None:
        with lock:
            counts["inside"] += 1
            counts["most"] = max(counts["most"], counts["inside"])
        opened.wait(10)
        with lock:
            counts["inside"] -= 1

    async with Worker(client, [flow], concurrency=4):
        runs = await client.submit_many(flow, [None] * 12)
        await eventually(lambda: counts["inside"] == 4)
        opened.set()
        for run in runs:
            await run.result(timeout=10)
    assert counts["most"] == 4


async def test_the_more_urgent_run_first(client: Client) -> None:
    flow = Workflow("urgent", input=int)
    order: list[int] = []

    @flow.step
    async def note(number: int) -> None:
        order.append(number)

    priorities = [0, -100, 7, 100, -3, 7]
    runs = await client.submit_many(flow, [Submission(n, priority=n) for n in priorities])
    async with Worker(client, [flow], concurrency=1):
        for run in runs:
            await run.result(timeout=10)
    assert order == sorted(priorities, reverse=True)


async def test_a_worker_serves_its_queues_only(client: Client) -> None:
    flow = Workflow("render", output=int)

    @flow.step
    async def prepare() -> int:
        return 1

    @flow.step(queue="gpu", export=True)
    async def render(prepare: int) -> int:
        return prepare + 1

    async with Worker(client, [flow], queues=["render"], worker_id="cpu"):
        run = await client.submit(flow)
        await eventually(lambda: _scheduled(client, "gpu"))
        async with Worker(client, [flow], queues=["gpu"], worker_id="gpu"):
            assert await run.result(timeout=10) == 2
    assert await started_by(client, run.id) == ["cpu", "gpu"]


async def _scheduled(client: Client, queue: str) -> int:
    return int(await client.backend.client.zcard(client.backend.partitions[0].scheduled(queue, 0)))


async def test_without_queues_a_worker_serves_all_of_its_workflows(client: Client) -> None:
    one, two = Workflow("one", output=str), Workflow("two", output=str)

    @one.step(export=True, queue="special")
    async def a() -> str:
        return "a"

    @two.step(export=True)
    async def b() -> str:
        return "b"

    async with Worker(client, [one, two]) as worker:
        assert worker.queues == ["special", "two"]
        assert [await (await client.submit(flow)).result(timeout=10) for flow in (one, two)] == ["a", "b"]


async def test_two_workers_share_the_work(client: Client) -> None:
    flow, gate = Workflow("shared"), Gate()

    @flow.step
    async def occupy() -> None:
        await gate.enter()

    async with (
        Worker(client, [flow], concurrency=5, worker_id="a"),
        Worker(client, [flow], concurrency=5, worker_id="b"),
    ):
        runs = await client.submit_many(flow, [None] * 40)
        await eventually(lambda: gate.inside == 10)
        gate.opened.set()
        for run in runs:
            await run.result(timeout=10)
        by = [name for run in runs for name in await started_by(client, run.id)]
    assert gate.most == 10
    assert len(by) == 40
    assert min(by.count("a"), by.count("b")) >= 5


async def test_what_ends_together_travels_together(client: Client, server: TestServer) -> None:
    flow, gate = Workflow("group"), Gate()

    @flow.step
    async def occupy() -> None:
        await gate.enter()

    observer = server.client()
    async with Worker(client, [flow], concurrency=100) as worker:
        await client.submit_many(flow, [None] * 90)
        await eventually(lambda: gate.inside == 90)
        before = observer.info("commandstats")["cmdstat_fcall"]["calls"]
        gate.opened.set()
        await eventually(lambda: worker.running == 0)
        calls = observer.info("commandstats")["cmdstat_fcall"]["calls"] - before
    observer.close()
    assert calls <= 8  # one or two turns, a look for more work, a heartbeat perhaps; not one for each of 90


async def test_an_idle_worker_is_woken_long_before_it_would_look(client: Client) -> None:
    flow = Workflow("wake")

    @flow.step
    async def touch() -> None: ...

    waits: list[int] = []
    sleepers = client.backend.partitions[0].prefix + "sleepers:wake"
    async with Worker(client, [flow]):
        for _ in range(6):
            await eventually(lambda: client.backend.client.zcard(sleepers))
            run = await client.submit(flow)
            await run.result(timeout=10)
            wire = {event["type"]: event["timestampUs"] for event in await client.backend.load_wire_events(run.id)}
            waits.append(wire["StepStarted"] - wire["RunSubmitted"])
    # without wake-ups a worker looks every second, half of one on the average
    assert sorted(waits)[3] < 100_000
    assert max(waits) < 700_000


@pytest.mark.parametrize("factory", [False, True])
async def test_a_step_that_awaits_nothing_ends_at_once_from_python_3_12_on(
    client: Client, monkeypatch: pytest.MonkeyPatch, factory: bool
) -> None:
    """Not where the program makes its tasks in a way of its own."""
    flow = Workflow("eager")

    @flow.step
    async def quick() -> None: ...

    @flow.step
    async def patient(quick: None) -> None:
        await asyncio.sleep(0)

    made, ended = [0], {}

    def make(loop: Any, body: Any, **more: Any) -> asyncio.Task[Any]:
        made[0] += 1
        return asyncio.Task(body, loop=loop, **more)

    loop = asyncio.get_running_loop()
    if factory:
        loop.set_task_factory(make)
    try:
        async with Worker(client, [flow]) as worker:
            start = worker._executors.start

            def watch(job: Any) -> None:
                before = made[0]
                start(job)
                ended[job.step.decode()] = job.slot == -1
                assert made[0] - before == factory

            monkeypatch.setattr(worker._executors, "start", watch)
            for _ in range(2):  # for the first the plan has to be read
                run = await client.submit(flow)
                await run.result(timeout=10)
    finally:
        loop.set_task_factory(None)
    assert ended == {"quick": sys.version_info >= (3, 12) and not factory, "patient": False}


async def test_a_delayed_run_starts_when_it_is_due(client: Client) -> None:
    flow = Workflow("later")

    @flow.step
    async def touch() -> None: ...

    async with Worker(client, [flow]):
        by_delay = await client.submit(flow, delay="250ms")
        by_time = await client.submit(flow, at=datetime.now(UTC) + timedelta(milliseconds=250))
        for run in (by_delay, by_time):
            await run.result(timeout=10)
            state = await run.status()
            assert state.started_at is not None
            assert 0 <= state.started_at - state.available_at < 200_000
            assert state.available_at - state.created_at > 200_000


async def test_cancel_stops_an_async_body_and_tells_a_thread(client: Client) -> None:
    flow = Workflow("endless")
    seen = {"async": asyncio.Event(), "thread": threading.Event()}
    inside = [threading.Event(), threading.Event()]

    @flow.step
    async def sleep() -> None:
        inside[0].set()
        try:
            await asyncio.Event().wait()
        finally:
            seen["async"].set()

    @flow.step
    def spin(ctx: StepContext) -> None:
        inside[1].set()
        until(lambda: ctx.cancelled)
        seen["thread"].set()

    async with Worker(client, [flow]) as worker:
        run = await client.submit(flow)
        await eventually(lambda: all(event.is_set() for event in inside))
        assert (await run.cancel("changed my mind")).cancelled
        with pytest.raises(RunCancelled, match="changed my mind"):
            await run.result(timeout=10)
        await eventually(lambda: seen["async"].is_set() and seen["thread"].is_set())
        await eventually(lambda: worker.running == 0)
        assert not (await run.cancel()).cancelled
    wire = await client.backend.load_wire_events(run.id)
    assert wire[-1]["type"] == "WorkflowCancelled"


async def test_a_body_that_ignores_its_cancellation_is_recorded_no_more(client: Client) -> None:
    flow = Workflow("stubborn", output=str)
    inside, ended = asyncio.Event(), asyncio.Event()

    @flow.step(export=True)
    async def insist() -> str:
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return "done all the same"

    async with Worker(client, [flow]) as worker:
        run = await client.submit(flow)
        await inside.wait()
        await run.cancel()
        await ended.wait()
        await eventually(lambda: worker.running == 0)
    wire = await client.backend.load_wire_events(run.id)
    assert wire[-1]["type"] == "WorkflowCancelled"
    assert "StepCompleted" not in {event["type"] for event in wire}


async def test_a_worker_without_the_code_hands_the_step_back_unharmed(client: Client) -> None:
    older, newer = Workflow("deployed", output=int), Workflow("deployed", output=int)

    @older.step(export=True)
    async def old_way(ctx: StepContext) -> int:
        raise AssertionError("the run was submitted with other code")

    @newer.step(export=True)
    async def new_way(ctx: StepContext) -> int:
        return ctx.attempt

    run = await client.submit(newer)
    async with Worker(client, [older], worker_id="older"):
        await eventually(lambda: _retried(client, run.id))
    async with Worker(client, [newer], worker_id="newer"):
        assert await run.result(timeout=20) == 1
    assert (await started_by(client, run.id))[-1] == "newer"
    assert "StepFailed" not in {event["type"] for event in await client.backend.load_wire_events(run.id)}


async def _retried(client: Client, run_id: str) -> bool:
    wire = await client.backend.load_wire_events(run_id)
    return any(event["type"] == "StepScheduled" and event["reason"] == "retry" for event in wire)


async def test_a_step_that_no_worker_knows_fails_as_removed(settings: Settings) -> None:
    older, newer = Workflow("gone"), Workflow("gone")

    @older.step
    async def removed() -> None: ...

    @newer.step
    async def kept() -> None: ...

    async with Client(settings=settings.model_copy(update={"step_removed_after": 0})) as client:
        run = await client.submit(older)
        async with Worker(client, [newer]):
            await eventually(lambda: _ended(client, run.id))
        failed = [event for event in await client.backend.load_wire_events(run.id) if event["type"] == "StepFailed"]
        assert [event["failureReason"] for event in failed] == ["step-removed"]
        await assert_consistent(client.backend)


async def _ended(client: Client, run_id: str) -> bool:
    return (await client.status(run_id)).status == "failed"


@pytest.fixture
async def halves(server: TestServer, settings: Settings, tmp_path: Path) -> AsyncIterator[tuple[Client, Proxy]]:
    """A client of a namespace with two partitions, behind a proxy."""
    async with Proxy(server.socket, Path(server.folder) / "halves.sock") as proxy:
        update: dict[str, Any] = {"url": proxy.url, "partitions": 2}
        async with Client(settings=settings.model_copy(update=update)) as client:
            yield client, proxy
            await assert_consistent(client.backend)


async def test_slots_are_shared_over_partitions(halves: tuple[Client, Proxy]) -> None:
    client, _ = halves
    flow, gate = Workflow("halves"), Gate()

    @flow.step
    async def occupy() -> None:
        await gate.enter()

    async with Worker(client, [flow], concurrency=8):
        runs = await client.submit_many(flow, [Submission(None, run_id=f"r{n}") for n in range(24)])
        assert len({client.backend.partition(run.id) for run in runs}) == 2
        await eventually(lambda: gate.inside == 8)
        gate.opened.set()
        for run in runs:
            await run.result(timeout=10)
    assert gate.most == 8


async def test_a_slot_that_a_partition_did_not_use_goes_on_to_the_next(settings: Settings) -> None:
    """Not with the next look at the partition that gave it back, most of a second later."""
    flow = Workflow("one-slot")

    @flow.step
    async def touch() -> None: ...

    async with Client(settings=settings.model_copy(update={"partitions": 16})) as client:
        async with Worker(client, [flow], concurrency=1) as worker:
            await eventually(lambda: worker.asleep, 2)  # all sixteen were asked
        await assert_consistent(client.backend)


async def test_a_partition_that_was_silent_is_served_again(halves: tuple[Client, Proxy], server: TestServer) -> None:
    """After a second without an answer its slots serve others; it must be looked at again all the same."""
    client, proxy = halves
    flow = Workflow("silent")

    @flow.step
    async def touch() -> None: ...

    worker = Worker(client, [flow], concurrency=4)
    async with worker:
        await eventually(lambda: all(link.timer for link in worker._dispatcher.links))
        proxy.hold()
        await eventually(
            lambda: not any(link.timer for link in worker._dispatcher.links)
        )  # the next looks are under way
        await eventually(lambda: len(worker._dispatcher._free) == 4)  # and their slots were taken back
        proxy.let_go()
        await eventually(lambda: worker._dispatcher.idle)
        observer = server.client()  # no wake-up is to help
        for keys in client.backend.partitions:
            observer.delete(f"{keys.prefix}sleepers:silent")
        observer.close()
        for run in await client.submit_many(flow, [Submission(None, run_id=f"r{n}") for n in range(8)]):
            await run.result(timeout=10)
