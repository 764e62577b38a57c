"""A network that swallows one direction, and closes nothing: who waits gives up the line by itself, and nothing is doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from redisflow import Client, Reclaimer, Run, Settings, Worker
from redisflow.backend.call_line import ANSWER_WITHIN
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.harness import ends_once, more_than
from tests.faults.proxy import PASS, SWALLOW, Proxy
from tests.flows_worker import brisk


@pytest.fixture
async def proxy(server: TestServer) -> AsyncIterator[Proxy]:
    async with Proxy(server.socket, Path(server.folder) / "hole.sock") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_a_direction_is_swallowed_for_longer_than_any_timeout(
    settings: Settings, proxy: Proxy, direction: str
) -> None:
    update = {"url": proxy.url, "retry_deadline": 120_000_000, "stale_after": 300_000_000}
    async with Client(settings=settings.model_copy(update=update)) as client, Client(settings=settings) as outside:
        runs: list[Run[int]] = []
        enough = asyncio.Event()

        async def submit() -> None:
            while not enough.is_set():
                runs.extend(await client.submit_many(brisk, range(len(runs), len(runs) + 5)))
                await asyncio.sleep(0.01)

        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        async with Worker(client, [brisk], concurrency=20):
            submitting = asyncio.create_task(submit())
            await eventually(lambda: more_than(outside, 50))
            if direction == "requests":
                proxy.rule = lambda _: SWALLOW
            else:
                proxy.mute = True
            await asyncio.sleep(ANSWER_WITHIN + 2)
            assert proxy.dropped > 3
            proxy.rule, proxy.mute = lambda _: PASS, False
            before = len(runs)
            await eventually(lambda: len(runs) > before + 50, 30)
            enough.set()
            await submitting
            assert await asyncio.gather(*(run.result(timeout=30) for run in runs)) == [
                2 * n + 1 for n in range(len(runs))
            ]
        sidecar.stop()
        await upkeep
        assert (await outside.runs(limit=1))[1] == len(runs)  # a submit that was repeated made no second run
        await ends_once(outside, runs, 2)
        await assert_consistent(outside.backend)
