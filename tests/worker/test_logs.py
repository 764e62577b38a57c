"""What a step prints and logs becomes part of its run's history."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client, RunFailed, Settings, StepContext, Worker, Workflow
from redisflow.backend.redis.recording import Recording
from redisflow.worker import logs
from redisflow.worker.capture import Proxy
from redisflow.worker.dispatcher import Dispatcher
from tests.conftest import assert_consistent, eventually

isolated = Workflow("isolated-logs")


@isolated.step(isolate=True)
def chatter(ctx: StepContext) -> None:
    print("printed")
    ctx.logger.info("logged")
    os.write(2, b"raw \xff\n")
    sys.stdout.write("no newline")


@pytest.fixture
async def client(settings: Settings, tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(settings=settings.model_copy(update={"home": tmp_path})) as client:
        yield client
        await assert_consistent(client.backend)


async def lines_of(client: Client, run_id: str) -> list[tuple[str, str]]:
    wire = await client.backend.load_wire_events(run_id)
    return [(event["stream"], event["message"]) for event in wire if event["type"] == "LogEntry"]


async def test_prints_and_records_of_loop_and_threads_are_the_steps(
    client: Client, capfd: pytest.CaptureFixture[str]
) -> None:
    flow = Workflow("chatty")

    @flow.step
    async def first(ctx: StepContext) -> None:
        print("one", "line")
        print("two\nlines", file=sys.stderr)
        ctx.logger.info("an %s", "info")
        logging.getLogger("somebody").warning("careful")
        await asyncio.to_thread(print, "from a thread")

    @flow.step(after=[first])
    def second() -> None:
        print("plain")

    async with Worker(client, [flow]):
        assert isinstance(sys.stdout, Proxy)
        print("not of a step")
        run = await client.submit(flow)
        await run.result(timeout=10)
    assert not isinstance(sys.stdout, Proxy)
    assert await lines_of(client, run.id) == [
        ("stdout", "one line"),
        ("stderr", "two"),
        ("stderr", "lines"),
        ("stderr", "INFO redisflow.step.chatty.first: an info"),
        ("stderr", "WARNING somebody: careful"),
        ("stdout", "from a thread"),
        ("stdout", "plain"),
    ]
    wire = await client.backend.load_wire_events(run.id)
    kinds = [(event["type"], event.get("stepId")) for event in wire]
    assert kinds.index(("StepStarted", "first")) < kinds.index(("LogEntry", "first"))
    assert kinds.index(("StepCompleted", "first")) > kinds.index(("LogEntry", "first"))
    started = next(event for event in wire if event["type"] == "StepStarted")
    ended = next(event for event in wire if event["type"] == "StepCompleted")
    for event in wire:
        if event["type"] == "LogEntry" and event["stepId"] == "first":
            assert event["attemptNumber"] == 1
            assert started["timestampUs"] <= event["timestampUs"] <= ended["timestampUs"]
    shown = capfd.readouterr()
    assert "one line\n" in shown.out
    assert "not of a step\n" in shown.out
    assert "two\nlines\n" in shown.err


async def test_a_step_that_runs_before_its_worker_has_fully_started_is_heard(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first claim may be answered while `start` still waits for the connections."""
    flow = Workflow("early")

    @flow.step
    async def speak() -> None:
        print("early")

    run = await client.submit(flow)
    opened = Dispatcher.open

    async def open_slowly(self: Dispatcher) -> None:
        await opened(self)
        await run.result(timeout=10)

    monkeypatch.setattr(Dispatcher, "open", open_slowly)
    async with Worker(client, [flow]):
        pass
    assert await lines_of(client, run.id) == [("stdout", "early")]


async def test_a_worker_that_cannot_start_gives_the_streams_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Dispatcher) -> None:
        raise OSError("no line")

    flow = Workflow("early-too")

    @flow.step
    async def nothing() -> None:
        """Nothing."""

    monkeypatch.setattr(Dispatcher, "open", fail)
    started = Worker(client, [flow])
    with pytest.raises(OSError, match="no line"):
        await started.start()
    assert not isinstance(sys.stdout, Proxy)
    await started.drain()


async def test_steps_at_once_keep_their_lines_apart(client: Client) -> None:
    flow = Workflow("apart", input=int)

    @flow.step
    async def work(number: int) -> None:
        for _ in range(3):
            print(number)
            await asyncio.sleep(0)

    async with Worker(client, [flow]):
        runs = await client.submit_many(flow, list(range(10)))
        for run in runs:
            await run.result(timeout=10)
    for number, run in enumerate(runs):
        assert await lines_of(client, run.id) == [("stdout", str(number))] * 3


async def test_an_isolated_step_is_heard_through_its_pipes(client: Client) -> None:
    async with Worker(client, [isolated]):
        run = await client.submit(isolated)
        await run.result(timeout=30)
    found = await lines_of(client, run.id)
    assert [line for stream, line in found if stream == "stdout"] == ["printed", "no newline"]
    assert [line for stream, line in found if stream == "stderr"] == [
        "INFO redisflow.step.isolated-logs.chatter: logged",
        "raw \\xff",
    ]


async def test_lines_arrive_while_the_step_runs_and_before_a_failure(client: Client) -> None:
    flow = Workflow("live")
    go = asyncio.Event()

    @flow.step
    async def work() -> None:
        print("early")
        await go.wait()
        print("late")
        raise ValueError("over")

    async with Worker(client, [flow]):
        run = await client.submit(flow)

        async def early() -> bool:
            return ("stdout", "early") in await lines_of(client, run.id)

        await eventually(early)
        go.set()
        with pytest.raises(RunFailed, match="over"):
            await run.result(timeout=10)
    assert await lines_of(client, run.id) == [("stdout", "early"), ("stdout", "late")]


async def test_too_many_lines_are_dropped_and_counted(client: Client) -> None:
    flow = Workflow("flood")

    @flow.step
    def work() -> None:
        for number in range(3_000):
            print(number)
            if number % 50 == 0:
                time.sleep(0.001)
        print("x" * 100_000)

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await run.result(timeout=20)
    found = await lines_of(client, run.id)
    assert found[:-1] == [("stdout", str(number)) for number in range(logs.WINDOW_LINES)]
    assert found[-1][0] == "stderr"
    assert found[-1][1].startswith("… 2001 lines dropped")


async def test_a_step_that_writes_nothing_costs_no_call(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Workflow("silent")
    calls: list[Any] = []

    async def record(*args: Any) -> None:
        calls.append(args)

    monkeypatch.setattr(Recording, "record_notes", record)

    @flow.step
    async def work() -> None: ...

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await run.result(timeout=10)
    assert calls == []


async def test_a_line_in_pieces_is_one_line_and_a_long_one_is_cut(client: Client) -> None:
    flow = Workflow("pieces")

    @flow.step
    async def work() -> None:
        print("a", end="")
        print("b", end="\r\n")
        print("y" * 20_000)

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await run.result(timeout=10)
    first, second = await lines_of(client, run.id)
    assert first == ("stdout", "ab")
    assert second == ("stdout", "y" * logs.MAX_LINE + " … cut")
