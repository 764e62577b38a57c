"""A task that is cancelled while it talks to Redis ends, at whatever moment of the call the cancellation comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from redisflow.backend.redis import RedisBackend


@pytest.mark.parametrize(
    "call",
    [lambda backend: backend.server.retry(backend.client.ping), lambda backend: backend.backend_ready()],
    ids=["a command", "a script"],
)
async def test_no_cancellation_is_lost(
    backend: RedisBackend, call: Callable[[RedisBackend], Awaitable[object]]
) -> None:
    over = False

    async def calls() -> None:
        while not over:
            await call(backend)

    for ticks in range(200):
        task = asyncio.create_task(calls())
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        over = not done
        await asyncio.wait([task])
        assert task.cancelled(), f"a cancellation in tick {ticks} was lost"


async def test_one_that_came_before_the_call_is_not_lost_either(backend: RedisBackend) -> None:
    async def cancelled_as_it_runs() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()  # as the handler of Ctrl-C does
        await backend.server.retry(backend.client.ping)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(cancelled_as_it_runs())


async def test_a_cancelled_task_can_still_clean_up(backend: RedisBackend) -> None:
    answers: list[object] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            answers.append(await backend.server.retry(backend.client.ping))

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == [True]
