"""Clients with short thresholds, a reclaimer that is awake, a server that keeps what it acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from redisflow import Client, Reclaimer, Settings
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.harness import SHORT, is_calm


@pytest.fixture
async def quick(settings: Settings) -> AsyncIterator[Client]:
    """A client with short thresholds."""
    async with Client(settings=settings.model_copy(update=SHORT)) as client:
        yield client
        await assert_consistent(client.backend)


@pytest.fixture
async def reclaimer(quick: Client) -> AsyncIterator[Reclaimer]:
    """A reclaimer past the grace of its first round."""
    sidecar = Reclaimer(quick, name="sidecar")
    task = asyncio.create_task(sidecar.run())
    await eventually(lambda: is_calm(quick))
    yield sidecar
    sidecar.stop()
    await task


@pytest.fixture
def durable() -> Iterator[TestServer]:
    """A server of one's own that keeps what it acknowledged."""
    running = TestServer("--appendonly", "yes", "--appendfsync", "always")
    yield running
    running.close()


@pytest.fixture
async def durably(durable: TestServer, settings: Settings) -> AsyncIterator[Client]:
    update = {**SHORT, "url": durable.url, "retry_deadline": 30_000_000}
    async with Client(settings=settings.model_copy(update=update)) as client:
        yield client
        await assert_consistent(client.backend)
