"""What `bench` measures, each as a function of an open client: submit, pick-up, drain, claims.

All work on workflows that do nothing, so that what is measured is the server, the way to it, and redisflow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.backend.turns import MAX_CLAIMS, Lane, TurnAnswer, TurnLink
from redisflow.client import Client
from redisflow.codec import pack
from redisflow.define import Workflow
from redisflow.model.errors import RedisflowError
from redisflow.worker import Worker

LOOK = 0.005
"""Seconds between two looks at what is waited for."""


async def submits(client: Client, flow: Workflow[Any, Any], count: int) -> float:
    """Seconds in which `count` runs are submitted in one call."""
    await client.submit_many(flow, [])  # registers the workflow, which is not what is measured
    began = time.perf_counter()
    await client.submit_many(flow, [None] * count)
    return time.perf_counter() - began


async def drains(client: Client, slug: str, count: int) -> tuple[float, float]:
    """Seconds in which `count` runs are submitted, and those from a worker's start until the server has recorded the end of all."""
    flow, begun, all_begun = Workflow[Any, Any](slug), 0, asyncio.Event()

    @flow.step
    async def noop() -> None:
        nonlocal begun
        begun += 1
        if begun == count:
            all_begun.set()

    async def ended() -> bool:
        _, total = await client.backend.list_runs(workflow_slug=slug, status=["completed"], limit=1)
        return total >= count

    submitted = await submits(client, flow, count)
    began = time.perf_counter()
    async with Worker(client, [flow]):
        await all_begun.wait()  # nothing asks the server before
        await _until(ended)
        return submitted, time.perf_counter() - began


async def pick_ups(client: Client, slug: str, count: int) -> list[float]:
    """Seconds from the call of submit to the first line of the step, on an idle worker, one run at a time."""
    flow, began, samples, seen = Workflow[Any, Any](slug), 0.0, list[float](), asyncio.Event()

    @flow.step
    async def sample() -> None:
        samples.append(time.perf_counter() - began)
        seen.set()

    async with Worker(client, [flow]) as worker:

        async def idle() -> bool:
            return worker.running == 0 and worker.asleep

        for _ in range(count):
            await _until(idle)
            seen.clear()
            began = time.perf_counter()
            await client.submit(flow)
            await seen.wait()
    return samples


async def claims(backend: RedisBackend, slug: str, count: int, workers: int = 1) -> float:
    """Seconds in which `count` runs that wait are claimed, each worker with one line a partition; none of them is run.

    Raises:
        RedisflowError: fewer could be claimed.
    """
    taken, done = 0, asyncio.Event()

    def on_answer(link: TurnLink, lane: Lane, answer: TurnAnswer) -> None:
        nonlocal taken
        taken += len(answer.claims)
        if taken >= count:
            done.set()
        elif answer.claims:
            link.send(lane, list(range(MAX_CLAIMS)), False)

    links = [
        TurnLink(
            backend, partition, worker=f"bench-{number}.0", queues=[slug], on_answer=on_answer,
            body=pack({"wi": f"bench-{number}.0", "wc": 100})[1:], offers=False, on_fatal=lambda error: done.set(),
        )
        for number in range(workers) for partition in range(len(backend.partitions))
    ]  # fmt: skip
    try:
        for link in links:
            await link.open()
        began = time.perf_counter()
        for link in links:
            for lane in link.lanes:
                link.send(lane, list(range(MAX_CLAIMS)), False)
        await done.wait()
        took = time.perf_counter() - began
    finally:
        for link in links:
            link.close()
    if taken < count:
        raise RedisflowError(f"only {taken} of {count} runs could be claimed: the namespace was lost in the middle")
    return took


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 — what is waited for is in the server
        await asyncio.sleep(LOOK)
