"""The pytest plugin: a real server for tests of your own flows, with a fresh namespace for each.

    async def test_checkout(redisflow_settings):
        async with Client(settings=redisflow_settings) as rf, Worker(rf, [checkout]):
            run = await rf.submit(checkout, Order(id="o-1"))
            assert (await run.result(timeout=5)).paid

The server is the embedded one, in a folder of its own, ended with the session. For tests that need no server at all there is
`Workflow.run_inline`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from redisflow.embedded import EmbeddedServer
from redisflow.settings import Settings


@pytest.fixture(scope="session")
def redisflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of an embedded server that lives as long as the test session."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("redisflow")) as server:
        yield server.url


@pytest.fixture
def redisflow_settings(redisflow_url: str) -> Settings:
    """Settings with a namespace that no other test uses, and thresholds fit for tests."""
    return Settings(
        url=redisflow_url,
        namespace=f"test-{uuid.uuid4().hex[:12]}",
        stale_after="2s",
        heartbeat_interval="500ms",
        reclaim_interval="200ms",
        drain_timeout="2s",
    )
