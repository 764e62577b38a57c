"""As large as it gets: payloads, fan-outs, graphs, histories. No call may hold the server up, and verify still reads it all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from redisflow import Client, Settings, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.types import Submission
from redisflow.codec import pack
from redisflow.model.errors import PayloadTooLarge
from tests.conftest import TestServer
from tests.flows import claim, complete, done, fan_in_and_out, plan, status, step, submit

pytestmark = pytest.mark.slow
MEGABYTE = 1_048_576


@pytest.fixture
async def large(server: TestServer, settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings=settings.model_copy(update={"max_payload_bytes": 64 * MEGABYTE})) as client:
        yield client


async def check(client: Client) -> None:
    assert [violation async for violation in Verifier(client.backend).check()] == []


async def test_64_megabytes_in_and_out(large: Client) -> None:
    flow = Workflow("heavy", input=str, output=int)

    @flow.step
    async def double(input: str) -> str:
        return input + input

    @flow.step(export=True)
    async def measure(double: str) -> int:
        return len(double)

    half = "x" * (32 * MEGABYTE - 10)
    async with Worker(large, [flow]):
        assert await (await large.submit(flow, half)).result(timeout=60) == 2 * len(half)
        with pytest.raises(PayloadTooLarge):
            await large.submit(flow, "x" * (64 * MEGABYTE))
    await check(large)


def _slowest_script(server: TestServer) -> int:
    """Microseconds of the longest FCALL since the log was reset."""
    with server.client() as client:
        return max((int(entry["duration"]) for entry in client.slowlog_get(1000)), default=0)


@pytest.fixture
def slowlog(server: TestServer) -> Any:
    with server.client() as client:
        client.config_set("slowlog-log-slower-than", 1000)
        client.slowlog_reset()


async def test_a_fan_out_of_10_000(backend: RedisBackend, server: TestServer, slowlog: None) -> None:
    width = 10_000
    wide = fan_in_and_out(width)
    await backend.register_plan(wide)
    run_id = await submit(backend, wide)
    await complete(backend, run_id, "root")
    ended: list[Any] = []
    for seq in range(1, 2000):
        reply = await _turn(backend, seq, ended)
        ended = [
            part for run, name, _, attempt, *_ in reply[5]
            for part in (run.decode(), name.decode(), reply[1], "c", pack({"a": attempt, "d": 1, "x": False}), "1", "")
        ]  # fmt: skip
        if not ended and await status(backend, run_id) == "completed":
            break
    assert await status(backend, run_id) == "completed"
    assert _slowest_script(server) < 200_000
    await backend.delete_run(run_id)


async def _turn(backend: RedisBackend, seq: int, outcomes: list[Any]) -> list[Any]:
    from tests.flows import turn

    return await turn(backend, seq, 64, outcomes)


async def test_a_graph_of_1000_steps(client: Client) -> None:
    """Ten layers of a hundred, each step waiting for ten of the layer above."""
    steps = [step(f"s0x{n}") for n in range(100)]
    for layer in range(1, 10):
        steps += [
            step(f"s{layer}x{n}", *(f"s{layer - 1}x{(n * 7 + k * 13) % 100}" for k in range(10))) for n in range(100)
        ]
    graph, backend = plan(*steps), client.backend
    await backend.register_plan(graph)
    run_id = await submit(backend, graph)
    ended: list[Any] = []
    for seq in range(1, 200):
        reply = await _turn(backend, seq, ended)
        ended = [
            part for run, name, _, attempt, *_ in reply[5]
            for part in (run.decode(), name.decode(), reply[1], "c", pack({"a": attempt, "d": 1, "x": False}), "1", "")
        ]  # fmt: skip
        if await status(backend, run_id) == "completed":
            break
    assert await status(backend, run_id) == "completed"


async def test_a_history_of_100_000_events(client: Client, server: TestServer, slowlog: None) -> None:
    backend = client.backend
    one = plan(step("a"))
    await backend.register_plan(one)
    run_id = (await backend.submit(one, [Submission()]))[0].run_id
    running = await claim(backend, run_id, "a")
    line = ("LogEntry", pack({"a": 1, "st": "stdout", "m": "a line of a step that has much to say"}), "")
    for _ in range(200):
        await backend.record_notes(run_id, "a", running.lease, [line] * 500)
    done(await backend.complete_step(running, "1"))
    assert await status(backend, run_id) == "completed"
    events = await backend.load_wire_events(run_id)
    assert len(events) > 100_000
    await check(client)
    assert _slowest_script(server) < 100_000
    assert await backend.delete_run(run_id)
    assert await backend.load_wire_events(run_id) == []
