"""Waiting for runs, following them, and the ways they end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from redisflow import Client, ResultTimeout, RunCancelled, RunFailed, RunNotFound, Settings, Worker, Workflow
from redisflow.backend.types import Claim
from redisflow.model.events import BaseEvent
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.proxy import WAIT, Nth, Proxy


@dataclass
class Receipt:
    total: int


flow = Workflow("pay", input=int, output=Receipt)


@flow.step(export=True)
async def pay(cents: int) -> Receipt:
    if cents < 0:
        raise ValueError("nothing to pay")
    return Receipt(cents)


async def claimed(client: Client, run_id: str) -> Claim:
    claim = await client.backend.claim_step(run_id, "pay", "w.1")
    assert claim is not None
    return claim


async def test_the_result_is_typed(client: Client) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, 5)
        assert await run.result(timeout=10) == Receipt(5)
        assert await run.result() == Receipt(5)
        assert await client.result(run.id) == {"total": 5}
        assert await client.run(run.id).result() == {"total": 5}


async def test_several_exported_steps_give_an_object_and_none_gives_none(client: Client) -> None:
    several, silent = Workflow("several"), Workflow("silent")

    @several.step(export=True)
    async def one() -> int:
        return 1

    @several.step(export=True)
    async def two() -> str:
        return "2"

    @silent.step
    async def quiet() -> int:
        return 1

    async with Worker(client, [several, silent]):
        run = await client.submit(several)
        assert await run.result(timeout=10) == {"one": 1, "two": "2"}
        assert await client.result(run.id) == {"one": 1, "two": "2"}
        assert await (await client.submit(silent)).result(timeout=10) is None


async def test_a_failed_run_raises_what_failed(client: Client) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, -1)
        with pytest.raises(RunFailed, match=r"failed in step 'pay': ValueError: nothing to pay") as caught:
            await run.result(timeout=10)
    error = caught.value
    assert (error.run_id, error.step_id, error.error_name, error.error_message) == (
        run.id,
        "pay",
        "ValueError",
        "nothing to pay",
    )
    assert "Traceback" in (error.stack or "")


async def test_a_cancelled_run_raises_why(client: Client) -> None:
    run = await client.submit(flow, 1)
    assert (await run.cancel("no money")).cancelled
    with pytest.raises(RunCancelled, match="no money") as caught:
        await run.result(timeout=10)
    assert caught.value.reason == "no money"
    again = await run.cancel()
    assert (again.cancelled, again.status) == (False, "cancelled")


async def test_a_timeout_of_the_wait_leaves_the_run_alone(client: Client) -> None:
    run = await client.submit(flow, 1)
    with pytest.raises(ResultTimeout, match=r"still pending after 0\.05 s; it goes on") as caught:
        await run.result(timeout="50ms")
    assert isinstance(caught.value, TimeoutError)
    async with Worker(client, [flow]):
        assert await run.result(timeout=10) == Receipt(1)


async def test_a_run_that_never_was(client: Client) -> None:
    for call in (
        client.result("never"),
        client.status("never"),
        client.cancel("never"),
        anext(client.events("never")),
    ):
        with pytest.raises(RunNotFound, match="never"):
            await call


async def test_waiters_are_woken_at_once(client: Client) -> None:
    """Without the hint they would look again after five seconds."""
    run = await client.submit(flow, 1)
    claim = await claimed(client, run.id)
    waiting = [asyncio.create_task(run.result(timeout=20)) for _ in range(5)]
    waiters = client.backend.partitions[0].prefix + "waiters"
    await eventually(lambda: client.backend.client.exists(waiters))
    for _ in range(20):
        await asyncio.sleep(0)
    await client.backend.complete_step(claim, '{"total":1}', export_output=True)
    ended = time.monotonic()
    assert await asyncio.gather(*waiting) == [Receipt(1)] * 5
    assert time.monotonic() - ended < 2


async def test_a_waiter_that_comes_while_the_first_still_subscribes(settings: Settings, server: TestServer) -> None:
    async with Proxy(server.socket, Path(server.folder) / "slow.sock") as proxy:  # noqa: SIM117
        async with Client(settings=settings.model_copy(update={"url": proxy.url})) as client:
            run = await client.submit(flow, 1)
            claim = await claimed(client, run.id)
            proxy.rule = Nth(["SSUBSCRIBE"], WAIT)
            waiting = [asyncio.create_task(run.result(timeout=20)) for _ in range(3)]
            waiters = client.backend.partitions[0].prefix + "waiters"
            await eventually(lambda: client.backend.client.exists(waiters))
            await client.backend.complete_step(claim, '{"total":1}', export_output=True)
            proxy.gate.set()
            ended = time.monotonic()
            assert await asyncio.gather(*waiting) == [Receipt(1)] * 3
            assert time.monotonic() - ended < 2
            await assert_consistent(client.backend)


async def test_a_waiter_that_gives_up_leaves_nothing(client: Client) -> None:
    run = await client.submit(flow, 1)
    waiting = asyncio.create_task(run.result())
    await eventually(lambda: getattr(client.backend, "_waiters", None))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert client.backend._waiters == {}


async def test_events_live_until_the_end(client: Client) -> None:
    run = await client.submit(flow, 3)
    seen: list[BaseEvent] = []

    async def follow() -> None:
        async for event in run.events():
            seen.append(event)

    following = asyncio.create_task(follow())
    await eventually(lambda: len(seen) == 2)
    assert not following.done()
    claim = await claimed(client, run.id)
    await eventually(lambda: seen[-1].type == "StepStarted")
    await client.backend.complete_step(claim, '{"total":3}', export_output=True)
    await asyncio.wait_for(following, 10)
    assert [event.type for event in seen] == [
        "RunSubmitted", "StepScheduled", "WorkflowStarted", "WorkflowInputValidation", "StepStarted",
        "StepCompleted",
        "WorkflowCompleted",
    ]  # fmt: skip
    assert [event.timestamp_us for event in seen] == sorted(event.timestamp_us for event in seen)
    assert [event.type async for event in run.events()] == [event.type for event in seen]


async def test_events_of_a_run_that_is_deleted_meanwhile_end_loudly(client: Client) -> None:
    """A blocked read never wakes on a deleted stream: it looks for the run again."""
    run = await client.submit(flow, 3)
    await run.cancel()
    others = client.backend.follow(run.id, after="9999999999999999-0", block_ms=50)  # past the end, so that it blocks
    following = asyncio.ensure_future(anext(others))
    await asyncio.sleep(0)
    assert await client.backend.delete_run(run.id)
    with pytest.raises(RunNotFound):
        await asyncio.wait_for(following, 10)


async def test_status_and_steps_along_the_way(client: Client) -> None:
    run = await client.submit(flow, 3)
    assert (await run.status()).status == "pending"
    assert (await client.steps(run.id))["pay"].status == "scheduled"
    claim = await claimed(client, run.id)
    state = await run.status()
    assert (state.status, state.started_at is not None, state.completed_at) == ("running", True, None)
    assert (await client.steps(run.id))["pay"].status == "running"
    await client.backend.complete_step(claim, '{"total":3}', export_output=True)
    state = await run.status()
    assert state.status == "completed"
    assert state.started_at is not None
    assert state.completed_at is not None
    assert state.created_at <= state.started_at <= state.completed_at
    assert (await client.steps(run.id))["pay"].status == "completed"


async def test_two_clients_see_the_same(client: Client, settings: Settings) -> None:
    run = await client.submit(flow, 3)
    async with Client(settings=settings) as other, Worker(other, [flow]):
        assert await client.result(run.id, timeout=10, workflow=flow) == Receipt(3)
        assert (await other.status(run.id)).status == "completed"
