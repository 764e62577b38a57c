"""Checkpoints: a part of a step runs once, and a later attempt replays it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client, Retry, RunFailed, Settings, StepContext, Worker, Workflow
from redisflow.backend.redis.recording import Recording
from redisflow.backend.replies import Reply
from redisflow.codec import pack
from redisflow.model.errors import InvalidArgument, TransitionRefused, UsageError
from tests.conftest import assert_consistent, eventually
from tests.flows import claim, plan, step, submit

AGAIN = Retry(attempts=3, delay="1ms")


@dataclass
class Charge:
    cents: int


isolated = Workflow("isolated-checkpoints", input=str, output=list[Any])


@isolated.step(isolate=True, retry=AGAIN, export=True)
def counted(input: str, ctx: StepContext) -> list[Any]:
    def count() -> int:
        with open(input, "a") as file:
            file.write("x")
        return len(Path(input).read_text())

    first = ctx.checkpoint_sync("count", count)
    second = ctx.checkpoint_sync("count", count)
    if ctx.attempt == 1:
        raise ValueError("again")
    return [first, second, len(Path(input).read_text())]


@pytest.fixture
async def client(settings: Settings, tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(settings=settings.model_copy(update={"home": tmp_path, "drain_timeout": 100_000})) as client:
        yield client
        await assert_consistent(client.backend)


async def checkpoints_of(client: Client, run_id: str) -> list[tuple[Any, ...]]:
    wire = await client.backend.load_wire_events(run_id)
    return [
        (event["type"], event["name"], event["sequenceNumber"], event["attemptNumber"], event.get("data"))
        for event in wire
        if event["type"].startswith("StepCheckpoint")
    ]


async def test_a_later_attempt_replays_what_was_finished(client: Client) -> None:
    flow = Workflow("replays", output=list[Any])
    calls: list[str] = []

    @flow.step(retry=AGAIN, export=True)
    async def work(ctx: StepContext) -> list[Any]:
        async def charge() -> Charge:
            calls.append("charge")
            return Charge(499)

        def plain() -> dict[str, int]:
            calls.append("plain")
            return {"n": len(calls)}

        found = [await ctx.checkpoint("charge", charge), *[await ctx.checkpoint("loop", plain) for _ in range(2)]]
        assert isinstance(found[0], Charge)  # first time and replay alike
        if ctx.attempt == 1:
            raise ValueError("again")
        return found

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == [{"cents": 499}, {"n": 2}, {"n": 3}]
    assert calls == ["charge", "plain", "plain"]
    assert await checkpoints_of(client, run.id) == [
        ("StepCheckpoint", "charge", 0, 1, '{"cents":499}'),
        ("StepCheckpoint", "loop", 0, 1, '{"n":2}'),
        ("StepCheckpoint", "loop", 1, 1, '{"n":3}'),
    ]


async def test_threads_use_the_blocking_form(client: Client) -> None:
    flow = Workflow("threads", output=int)
    calls: list[int] = []

    @flow.step(retry=AGAIN, export=True)
    def work(ctx: StepContext) -> int:
        def draw() -> int:
            calls.append(ctx.attempt)
            return 7

        value = ctx.checkpoint_sync("draw", draw)
        if ctx.attempt < 3:
            raise ValueError("again")
        return value

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == 7
    assert calls == [1]


async def test_an_isolated_step_has_them_too(client: Client, tmp_path: Path) -> None:
    async with Worker(client, [isolated]):
        run = await client.submit(isolated, str(tmp_path / "count"))
        assert await run.result(timeout=30) == [1, 2, 2]
    assert [entry[:4] for entry in await checkpoints_of(client, run.id)] == [
        ("StepCheckpoint", "count", 0, 1),
        ("StepCheckpoint", "count", 1, 1),
    ]


async def test_what_raises_is_recorded_and_runs_again(client: Client) -> None:
    flow = Workflow("raises", output=str)
    calls: list[int] = []

    @flow.step(retry=AGAIN, export=True)
    async def work(ctx: StepContext) -> str:
        def flaky() -> str:
            calls.append(ctx.attempt)
            if ctx.attempt == 1:
                raise LookupError("not there")
            return "there"

        return await ctx.checkpoint("find", flaky)

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == "there"
    assert calls == [1, 2]
    assert [entry[:4] for entry in await checkpoints_of(client, run.id)] == [
        ("StepCheckpointFailed", "find", 0, 1),
        ("StepCheckpoint", "find", 0, 2),
    ]
    wire = await client.backend.load_wire_events(run.id)
    error = next(event["error"] for event in wire if event["type"] == "StepCheckpointFailed")
    assert (error["name"], error["message"]) == ("LookupError", "not there")


async def test_a_step_that_a_drain_hands_back_replays_under_the_same_attempt(client: Client) -> None:
    flow = Workflow("handed-back", output=int)
    calls: list[int] = []
    reached = asyncio.Event()

    @flow.step(export=True)
    async def work(ctx: StepContext) -> int:
        def once() -> int:
            calls.append(ctx.attempt)
            return 5

        value = await ctx.checkpoint("once", once)
        if not reached.is_set():
            reached.set()
            await asyncio.Event().wait()
        return value

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await reached.wait()
    async with Worker(client, [flow]):
        assert await run.result(timeout=10) == 5
    assert calls == [1]


async def test_mistakes_are_told(client: Client) -> None:
    flow = Workflow("mistakes")
    seen: list[type[Exception]] = []

    @flow.step
    async def work(ctx: StepContext) -> None:
        wrong: list[tuple[str, Any]] = [("x", int), ("", int), ("x", 3)]
        for name, fn in wrong:
            try:
                ctx.checkpoint_sync(name, fn)
            except UsageError as error:
                seen.append(type(error))
        await ctx.checkpoint("big", lambda: "x" * 2_000_000)

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match="checkpoint 'big'"):
            await run.result(timeout=10)
    assert seen == [UsageError, InvalidArgument, InvalidArgument]


async def test_a_lost_lease_records_nothing(client: Client) -> None:
    flow = Workflow("lost")
    outcome: list[BaseException | None] = []
    ready, go = asyncio.Event(), asyncio.Event()

    @flow.step
    async def work(ctx: StepContext) -> None:
        async def slow() -> int:
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):  # a body that does not let itself be stopped
                await go.wait()
            return 1

        try:
            await ctx.checkpoint("late", slow)
        except TransitionRefused as error:
            outcome.append(error)

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await ready.wait()
        await client.backend.cancel_run(run.id)
        await eventually(lambda: outcome)
    assert "RUN_ENDED" in str(outcome[0])
    assert await checkpoints_of(client, run.id) == []


async def test_the_fence_of_a_record(client: Client) -> None:
    backend = client.backend
    made = plan(step("a"), slug="fenced")
    run_id = await submit(backend, made)
    first = await claim(backend, run_id, "a")
    checkpoint = ("StepCheckpoint", pack({"nm": "n", "sn": 0, "a": 1}), "1")
    line = ("LogEntry", pack({"st": "stdout", "m": "hello", "a": 1, "ts": first.lease}), "")

    async def record(lease: int, *notes: Any, run: str = run_id) -> Reply:
        return await Recording.record_notes(backend, run, "a", lease, notes)

    assert await record(first.lease, checkpoint, line) is Reply.OK
    assert await record(first.lease + 1, line) is Reply.STALE
    assert await record(first.lease, line, run="missing") is Reply.GONE
    await backend.release_step(first)
    assert await record(first.lease, line) is Reply.OK  # last words: no other lease followed
    assert await record(first.lease, line, checkpoint) is Reply.STALE
    second = await claim(backend, run_id, "a")
    assert await record(first.lease, line) is Reply.STALE
    await backend.cancel_run(run_id)
    assert await record(second.lease, checkpoint) is Reply.RUN_ENDED
    assert await record(second.lease, line) is Reply.OK
    assert await Recording.load_checkpoints(backend, run_id, "a") == {("n", 0): "1"}
