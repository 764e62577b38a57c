"""A namespace over three nodes."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from redisflow import Client, Settings
from tests.clusters import TestCluster
from tests.conftest import assert_consistent


@pytest.fixture
def spread(three_nodes: TestCluster) -> Settings:
    """A fresh namespace of twelve partitions, four a node."""
    return Settings(
        url=three_nodes.url, namespace=f"t{uuid.uuid4().hex[:10]}", partitions=12, retry_deadline="20s", drain_timeout="5s",
        stale_after="2s", heartbeat_interval="200ms", reclaim_interval="100ms",
    )  # fmt: skip


@pytest.fixture
async def client(spread: Settings) -> AsyncIterator[Client]:
    """An open client; at the end the keys must be what the streams imply."""
    async with Client(settings=spread) as opened:
        yield opened
        await assert_consistent(opened.backend)
