"""TLS: with the right authority everything works, without it nothing is sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisflow import Client, ServerUnavailable, Settings, Worker
from tests.certificates import make_certificates, tls_binary
from tests.conftest import TestServer, assert_consistent
from tests.flows_worker import brisk


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and authority of a server that speaks TLS."""
    files, binary = make_certificates(tmp_path_factory.mktemp("tls")), tls_binary()
    server = TestServer(tcp=True, tls=files, binary=binary)
    yield server.port, files["ca"]
    server.close()


async def test_with_the_authority_everything_works(tls: tuple[int, Path]) -> None:
    port, ca = tls
    settings = Settings(
        url=f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca}", namespace="tls", heartbeat_interval="100ms"
    )
    async with Client(settings=settings) as client, Worker(client, [brisk]) as worker:
        runs = await client.submit_many(brisk, range(20))
        assert [await run.result(timeout=10) for run in runs] == [2 * n + 1 for n in range(20)]
        listed = await client.backend.get_worker_by_id(worker.id)
        assert listed is not None  # its heartbeats arrive, over a line of their own
        await assert_consistent(client.backend)


@pytest.mark.parametrize("options", ["", "?ssl_ca_certs=/no/such/file"])
async def test_an_authority_that_is_not_known_is_refused(tls: tuple[int, Path], options: str) -> None:
    with pytest.raises(ServerUnavailable):
        await Client(f"rediss://127.0.0.1:{tls[0]}{options}").open(deadline="300ms")


async def test_connections_share_one_context_until_a_file_changes(tls: tuple[int, Path]) -> None:
    """To make one takes tens of milliseconds, in which the loop stands still."""
    port, ca = tls
    async with Client(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={ca}", namespace="shared") as client:
        await asyncio.gather(*(client.backend.server_time() for _ in range(20)))
        pool = client.backend.client.connection_pool
        connections = [pool.make_connection() for _ in range(3)]
        assert len({id(connection.ssl_context.get()) for connection in connections}) == 1
        os.utime(ca, ns=(1, 1))
        assert pool.make_connection().ssl_context.get() is not connections[0].ssl_context.get()
