"""TLS and logins where there are several servers: sentinels with their own, a failover, a Cluster."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as Broken

from redisflow import Client, ServerUnavailable
from redisflow.backend.patience import heeding_cancel
from tests.certificates import make_certificates, tls_binary
from tests.clusters import TestCluster
from tests.faults.load import spread_settings, under_load
from tests.sentinels import Sentinels


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    tls_binary()
    return make_certificates(tmp_path)


@pytest.fixture
def sentinels(files: dict[str, Path]) -> Iterator[Sentinels]:
    running = Sentinels(secure=files, binary=tls_binary())
    yield running
    running.close()


@pytest.mark.slow
async def test_sentinels_with_tls_and_a_login_of_their_own(sentinels: Sentinels) -> None:
    """Servers ask for one password, sentinels for a user and another; a failover is followed all the same."""
    async with (
        Client(settings=spread_settings(sentinels.url, partitions=2)) as client,
        under_load(client, failover=True) as load,
    ):
        await load.grows(30)
        sentinels.primary.kill()
        await load.grows(30)


async def test_a_wrong_login_is_told_at_once(sentinels: Sentinels) -> None:
    for right in ("s3ntinel", "s3rver"):
        with pytest.raises(ServerUnavailable, match="refused the login or a command") as caught:
            await Client(sentinels.url.replace(right, "guessed")).open(deadline="60s")
        assert "guessed" not in str(caught.value)


async def test_a_cluster_with_tls(files: dict[str, Path]) -> None:
    cluster = TestCluster(tls=files, binary=tls_binary())
    try:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        url = f"rediss+cluster://{hosts}?ssl_ca_certs={files['ca']}"
        async with Client(settings=spread_settings(url)) as client, under_load(client) as load:
            await load.grows(30)
            await asyncio.to_thread(cluster.nodes[0].ask, "CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
            await load.grows(30)
    finally:
        cluster.close()


async def test_a_tls_connection_that_was_closed_is_a_broken_connection(files: dict[str, Path]) -> None:
    """As the client library closes one while a call is about to write to it: asyncio has no protocol by then."""
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(files["cert"], files["key"])
    trusted = ssl.create_default_context(cafile=str(files["ca"]))
    ended = asyncio.Event()

    async def read_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        ended.set()

    server = await asyncio.start_server(read_to_the_end, "127.0.0.1", 0, ssl=served)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=trusted)

    async def send() -> None:
        writer.writelines([b"PING\r\n"])
        await writer.drain()

    for _ in range(2):
        writer.transport.close()
    with contextlib.suppress(Broken, OSError):
        await heeding_cancel(send)
    await ended.wait()
    server.close()
