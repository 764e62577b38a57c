"""A primary under Sentinel that fails: client, worker and reclaimer go on with the replica that takes its place."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from redisflow import Client, ServerUnavailable
from tests.conftest import free_port
from tests.faults.load import spread_settings, under_load
from tests.sentinels import Sentinels


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    running = Sentinels()
    yield running
    running.close()


@pytest.mark.parametrize("fault", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_a_failover_is_followed(sentinels: Sentinels, fault: str) -> None:
    async with (
        Client(settings=spread_settings(sentinels.url, partitions=2)) as client,
        under_load(client, failover=True) as load,
    ):
        await load.grows(60)
        assert sentinels.primary.process is not None
        if fault == "killed":
            sentinels.primary.kill()
        else:
            sentinels.primary.process.send_signal(signal.SIGSTOP)
        await load.grows(60)
        control = sentinels.replica.client()
        assert control.role()[0] in (b"master", "master")
        control.close()
        if fault == "killed":
            await asyncio.to_thread(sentinels.primary.start)
        else:
            sentinels.primary.process.send_signal(signal.SIGCONT)
        await load.grows(60)


async def test_one_sentinel_that_is_gone_is_passed_over(sentinels: Sentinels) -> None:
    sentinels.processes[0].kill()
    async with Client(settings=spread_settings(sentinels.url, partitions=1)) as client:
        assert await client.backend.backend_ready()


async def test_no_sentinel_is_forgotten(sentinels: Sentinels) -> None:
    """Many ask at once and pass over the first; when that one alone is left, it is asked."""
    async with Client(settings=spread_settings(sentinels.url, partitions=1)) as client:
        backend = client.backend
        await asyncio.to_thread(sentinels.stop, 0)
        await asyncio.gather(*(backend.server.refresh_topology() for _ in range(20)))
        await asyncio.to_thread(sentinels.start, 0)
        await asyncio.to_thread(sentinels.stop, 1, 2)
        await backend.server.refresh_topology()
        assert await backend.backend_ready()


async def test_a_cancelled_look_for_the_primary_ends(sentinels: Sentinels) -> None:
    """At whatever point it is cancelled: the library's sending loses some cancellations on Python 3.11."""
    async with Client(settings=spread_settings(sentinels.url, partitions=1)) as client:
        for ticks in range(1, 30):
            for _ in range(20):
                looking = asyncio.create_task(client.backend.server.refresh_topology())
                for _ in range(ticks):
                    await asyncio.sleep(0)
                if looking.cancel():
                    await asyncio.wait([looking])
                    assert looking.cancelled()


async def test_a_service_that_no_sentinel_knows_is_named(sentinels: Sentinels) -> None:
    with pytest.raises(ServerUnavailable, match="other"):
        await Client(sentinels.url.replace("mymaster", "other")).open(deadline="300ms")


async def test_sentinels_that_cannot_be_reached(tmp_path: object) -> None:
    with pytest.raises(ServerUnavailable, match="mymaster"):
        await Client(f"redis+sentinel://127.0.0.1:{free_port()}/mymaster").open(deadline="300ms")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis+sentinel://host:26379", "the name of the service is missing"),
        ("redis+sentinel://host:port/service", "'host:port' is no host:port"),
        ("redis+sentinel://host/service/zero", "a database is a number"),
        ("redis+cluster://host/3", "a Cluster has only 0"),
        ("redis+other://host", "no host"),
    ],
)
async def test_a_url_that_is_not_understood_says_why(url: str, why: str) -> None:
    with pytest.raises(ServerUnavailable, match=why):
        await Client(url).open(deadline=0)
