"""A Cluster of real nodes that lose primaries, move slots and fall silent, under load."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from redisflow import Client
from tests.clusters import TestCluster
from tests.conftest import eventually
from tests.faults.load import spread_settings, under_load


@pytest.fixture
def replicated() -> Iterator[TestCluster]:
    """Three primaries with a replica each, of one's own."""
    running = TestCluster(replicas=1)
    yield running
    running.close()


@pytest.fixture
def lone() -> Iterator[TestCluster]:
    """Three primaries of one's own, that keep what they acknowledged, and serve on where one is gone."""
    running = TestCluster("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
    yield running
    running.close()


async def test_a_slot_moves_away_and_back_under_load(lone: TestCluster) -> None:
    async with Client(settings=spread_settings(lone.url)) as client:
        meta = client.backend.partitions[0].meta
        home = lone.owner(meta)
        away = next(node for node in lone.primaries if node is not home)
        async with under_load(client) as load:
            for target in (away, home, away):
                before = len(load.runs)
                await eventually(lambda before=before: len(load.runs) > before + 50, 30)
                for _ in lone.migrating(meta, target):
                    await asyncio.sleep(0.005)
                assert lone.owner(meta) is target
            before = len(load.runs)
            await eventually(lambda: len(load.runs) > before + 50, 30)
