"""A worker's life: start, heartbeats, log lines, drain, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client, Settings, StepContext, UsageError, Worker, Workflow
from redisflow.backend.redis import RedisBackend, inspect
from redisflow.worker.capture import JsonFormatter, StepFilter, TextFormatter
from tests.conftest import assert_consistent, eventually

ROOT = Path(__file__).parent.parent.parent


async def test_nothing_is_left_after_a_drain(client: Client) -> None:
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    flow = Workflow("tidy", output=int)

    @flow.step
    def plain() -> int:
        return 1

    @flow.step(export=True)
    async def coroutine(plain: int) -> int:
        return plain + 1

    async with Worker(client, [flow]):
        for run in await client.submit_many(flow, [None] * 20):
            assert await run.result(timeout=10) == 2
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: set(threading.enumerate()) == threads)


async def test_two_workflows_of_one_slug_and_none_at_all_are_refused(client: Client) -> None:
    flow = Workflow("same")
    with pytest.raises(UsageError, match="same slug"):
        Worker(client, [flow, Workflow("same")])
    with pytest.raises(UsageError, match="at least one"):
        Worker(client, [])


async def test_a_worker_that_ends_takes_its_leave(client: Client) -> None:
    flow = Workflow("brief")

    @flow.step
    async def step() -> None: ...

    async with Worker(client, [flow]) as worker:
        await eventually(lambda: alive(client))
        assert [each["id"] for each in await alive(client)] == [worker.id]
    assert await alive(client) == []


async def alive(client: Client) -> list[dict[str, Any]]:
    return await inspect.workers(client.backend, 60_000_000)


async def test_a_drain_lets_steps_end_and_hands_back_the_rest(settings: Settings) -> None:
    flow = Workflow("deploy", input=str, output=int)
    inside: list[str] = []
    finish = asyncio.Event()

    @flow.step(export=True)
    async def work(kind: str, ctx: StepContext) -> int:
        inside.append(kind)
        if kind == "quick":
            await finish.wait()
        elif kind == "slow" and inside.count(kind) == 1:
            await asyncio.Event().wait()
        return ctx.attempt

    async with Client(settings=settings.model_copy(update={"drain_timeout": 300_000})) as client:
        worker = Worker(client, [flow], worker_id="first")
        await worker.start()
        quick, slow = await client.submit_many(flow, ["quick", "slow"])
        await eventually(lambda: len(inside) == 2)
        draining = asyncio.create_task(worker.drain())
        await eventually(lambda: worker._dispatcher.draining)
        late = await client.submit(flow, "late")
        finish.set()
        await draining
        assert await quick.result(timeout=1) == 1
        assert (await late.status()).status == "pending"
        wire = await client.backend.load_wire_events(slow.id)
        assert (wire[-1]["type"], wire[-1]["reason"], wire[-1]["attemptNumber"]) == (
            "StepScheduled",
            "retry",
            1,
        )
        async with Worker(client, [flow], worker_id="second"):
            assert await slow.result(timeout=10) == 1
            assert await late.result(timeout=10) == 1
        await assert_consistent(client.backend)


async def test_a_thread_that_outlives_the_drain_loses_its_step(settings: Settings) -> None:
    flow, inside, leave = Workflow("stuck", output=int), threading.Semaphore(0), threading.Event()

    @flow.step(export=True)
    def block(ctx: StepContext) -> int:
        inside.release()
        leave.wait(20)
        return ctx.attempt

    async with Client(settings=settings.model_copy(update={"drain_timeout": 50_000})) as client:
        worker = Worker(client, [flow])
        await worker.start()
        run = await client.submit(flow)
        await asyncio.to_thread(inside.acquire)
        await worker.drain()
        assert (await client.steps(run.id))["block"].status == "scheduled"
        leave.set()
        async with Worker(client, [flow]):
            assert await run.result(timeout=10) == 1
        wire = await client.backend.load_wire_events(run.id)
        assert [event["type"] for event in wire].count("StepCompleted") == 1
        await assert_consistent(client.backend)


async def test_a_blocked_event_loop_keeps_its_heartbeat(settings: Settings) -> None:
    flow = Workflow("blocking", output=int)
    stop, rounds = threading.Event(), []

    @flow.step(export=True)
    async def block(ctx: StepContext) -> int:
        time.sleep(1.2)  # three thresholds
        return ctx.attempt

    async def reclaim() -> None:
        backend = RedisBackend(settings)
        await backend.initialize()
        while not stop.is_set():
            rounds.append(await backend.reclaim_round(0, threshold_us=400_000, reclaimed_by="tester"))
            await asyncio.sleep(0.02)
        await backend.close()

    async with Client(settings=settings.model_copy(update={"heartbeat_interval": 100_000})) as client:
        reclaimer = threading.Thread(target=lambda: asyncio.run(reclaim()))
        reclaimer.start()
        try:
            async with Worker(client, [flow]):
                await eventually(lambda: rounds)
                run = await client.submit(flow)
                assert await run.result(timeout=10) == 1
        finally:
            stop.set()
            reclaimer.join()
        assert len(rounds) > 20
        assert not any(done.reclaimed for done in rounds)
        await assert_consistent(client.backend)


async def test_heartbeats_renew_leases_and_make_the_worker_known(settings: Settings) -> None:
    flow, inside, leave = Workflow("beating"), asyncio.Event(), asyncio.Event()

    @flow.step
    async def wait() -> None:
        inside.set()
        await leave.wait()

    async with Client(settings=settings.model_copy(update={"heartbeat_interval": 30_000})) as client:
        keys, redis = client.backend.partitions[0], client.backend.client
        async with Worker(client, [flow], concurrency=3) as worker:
            run = await client.submit(flow)
            await inside.wait()
            member = f"{run.id}|wait"
            first = await redis.zscore(keys.running, member)

            async def renewed() -> bool:
                return bool(await redis.zscore(keys.running, member) > first)

            await eventually(renewed)
            info = json.loads(await redis.hget(f"{keys.prefix}worker:{worker.id}", "info"))
            assert info["pid"] == os.getpid()
            assert (info["concurrency"], info["queues"]) == (3, ["beating"])
            leave.set()
            await run.result(timeout=10)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the root logger writes as JSON lines."""
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(StepFilter())
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield out
    root.removeHandler(handler)
    root.setLevel(level)


async def test_log_lines_carry_run_step_and_attempt(client: Client, lines: io.StringIO) -> None:
    flow = Workflow("chatty")

    @flow.step
    async def speak(ctx: StepContext) -> None:
        logging.getLogger("some.library").info("from the %s", "loop")
        await asyncio.sleep(0)
        ctx.logger.info("from the context")

    @flow.step(after=[speak])
    def whisper() -> None:
        logging.getLogger("some.library").warning("from a thread")
        try:
            raise ValueError("inside")
        except ValueError:
            logging.getLogger("some.library").exception("caught")

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        await run.result(timeout=10)
    logging.getLogger("some.library").info("outside")
    found = {line["message"]: line for line in map(json.loads, lines.getvalue().splitlines())}
    for message, step in (
        ("from the loop", "speak"),
        ("from the context", "speak"),
        ("from a thread", "whisper"),
    ):
        line = found[message]
        assert (line["run_id"], line["step_id"], line["attempt"]) == (run.id, step, 1)
    assert found["from the context"]["logger"] == "redisflow.step.chatty.speak"
    assert found["from a thread"]["level"] == "warning"
    assert "ValueError: inside" in found["caught"]["exception"]
    assert "run_id" not in found["outside"]


def test_text_lines_name_the_step_where_there_is_one() -> None:
    record = logging.LogRecord("some.library", logging.INFO, __file__, 1, "hello", (), None)
    StepFilter().filter(record)
    assert TextFormatter().format(record).endswith("INFO    some.library  hello")
    record.run_id, record.step_id, record.attempt = "r-1", "speak", 2
    assert TextFormatter().format(record).endswith("hello  run=r-1 step=speak attempt=2")


class Process:
    """A worker process of `flows_worker`."""

    def __init__(self, settings: Settings, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "flows_worker.py")],
            stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "REDISFLOW_URL": settings.url or "",
                 "REDISFLOW_NAMESPACE": settings.namespace, **environment},
        )  # fmt: skip

    def line_with(self, word: str) -> str:
        """Wait for a line of its log."""
        assert self.process.stderr is not None
        seen = []
        for line in self.process.stderr:
            if word in line:
                return line
            seen.append(line)
        raise AssertionError(f"the worker ended without a word of {word!r}: {seen}")

    def end(self) -> int:
        """Wait for its end; exit code."""
        self.process.communicate(timeout=15)
        return self.process.returncode

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


async def test_sigterm_drains_a_process(client: Client, settings: Settings, tmp_path: Path) -> None:
    from tests.flows_worker import patient

    run = await client.submit(patient, str(tmp_path / "go"))
    with Process(settings, REDISFLOW_DRAIN_TIMEOUT="20s", REDISFLOW_LOG_FORMAT="json") as worker:
        await eventually((tmp_path / "go.begun").exists, 20)
        worker.process.send_signal(signal.SIGTERM)
        line = await asyncio.to_thread(worker.line_with, "draining")
        assert json.loads(line)["logger"] == "redisflow.worker"
        (tmp_path / "go").touch()
        assert await asyncio.to_thread(worker.end) == 0
    assert await run.result(timeout=1) == 1


async def test_a_second_sigterm_hands_back_at_once(client: Client, settings: Settings, tmp_path: Path) -> None:
    from tests.flows_worker import patient

    run = await client.submit(patient, str(tmp_path / "go"))
    with Process(settings, REDISFLOW_DRAIN_TIMEOUT="10m") as worker:
        await eventually((tmp_path / "go.begun").exists, 20)
        worker.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.line_with, "draining")
        worker.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.end) == 0
    wire = await client.backend.load_wire_events(run.id)
    assert (wire[-1]["type"], wire[-1]["reason"], wire[-1]["attemptNumber"]) == ("StepScheduled", "retry", 1)
