"""Load that goes on while a test breaks the servers below it, and what must be true at its end."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redisflow import Client, Reclaimer, Run, Settings, StepContext, Worker, Workflow
from tests.conftest import assert_consistent, eventually
from tests.flows_worker import brisk


def spread_settings(url: str, **update: Any) -> Settings:
    """A fresh namespace of twelve partitions, four a node, with short thresholds."""
    given: dict[str, Any] = {
        "partitions": 12, "retry_deadline": "60s", "drain_timeout": "10s", "stale_after": "10s",
        "heartbeat_interval": "500ms", "reclaim_interval": "200ms", **update,
    }  # fmt: skip
    return Settings(url=url, namespace=f"t{uuid.uuid4().hex[:10]}", **given)


class Load:
    """Runs that are submitted all the time; what was acknowledged is kept."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.runs: list[Run[int]] = []
        self._enough = False
        self._submitting = asyncio.create_task(self._submit())

    async def _submit(self) -> None:
        while not self._enough:  # cancelling could break off a submit that was accepted
            self.runs += await self.client.submit_many(brisk, range(6))
            await asyncio.sleep(0.05)

    async def grows(self, by: int, timeout: float = 60) -> None:
        """Wait until so many more runs were accepted, and those so far have ended."""
        before = len(self.runs)
        await eventually(lambda: len(self.runs) >= before + by or self._submitting.done(), timeout)
        if self._submitting.done():
            self._submitting.result()
        for run in self.runs[-by:]:
            await run.result(timeout=timeout)

    async def finish(self, failover: bool) -> None:
        """No more runs; each that was accepted must complete, with each step recorded once."""
        self._enough = True
        await self._submitting
        for first in range(0, len(self.runs), 100):
            part = self.runs[first : first + 100]
            await asyncio.gather(*(run.result(timeout=60) for run in part))
        for run in self.runs:
            types = Counter(event["type"] for event in await self.client.backend.load_wire_events(run.id))
            assert (types["StepCompleted"], types["WorkflowCompleted"]) == (2, 1), run.id
            if (
                not failover
            ):  # which loses what was acknowledged within its last milliseconds, a claim or an outcome too
                assert types["StepReclaimed"] == 0, run.id


class Steady:
    """Steps that run all the while; none of them may be taken back."""

    def __init__(self) -> None:
        self.flow: Workflow[None, int] = Workflow("steady", output=int)
        self._inside, self._leave = asyncio.Semaphore(0), asyncio.Event()

        async def wait(ctx: StepContext) -> int:
            self._inside.release()
            await self._leave.wait()
            return ctx.attempt

        self.flow.step(wait, export=True)

    async def start(self, client: Client, count: int) -> None:
        self._client = client
        self._runs = await client.submit_many(self.flow, [None] * count)
        for _ in self._runs:
            await self._inside.acquire()

    async def finish(self) -> None:
        self._leave.set()
        assert await asyncio.gather(*(run.result(timeout=30) for run in self._runs)) == [1] * len(self._runs)
        for run in self._runs:
            types = {event["type"] for event in await self._client.backend.load_wire_events(run.id)}
            assert "StepReclaimed" not in types


@asynccontextmanager
async def under_load(client: Client, *, failover: bool = False) -> AsyncIterator[Load]:
    """Workers and a reclaimer at work while the block runs; at its end everything must have gone well.

    Args:
        client: opened.
        failover: a replica takes over meanwhile.
    """
    sidecar, steady = Reclaimer(client), Steady()
    upkeep = asyncio.create_task(sidecar.run())
    try:
        async with Worker(client, [brisk, steady.flow], concurrency=40), Worker(client, [brisk], concurrency=20):
            await steady.start(client, 24)
            load = Load(client)
            try:
                yield load
            finally:
                await load.finish(failover)
            await steady.finish()
    finally:
        sidecar.stop()
        await upkeep
    await assert_consistent(client.backend)
