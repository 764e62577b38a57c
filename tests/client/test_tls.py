"""TLS: with the right authority everything works, without it nothing is sent."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisflow import Client, ServerUnavailable, Settings, Worker
from tests.certificates import make_certificates
from tests.conftest import TestServer, assert_consistent, free_port
from tests.flows_worker import brisk


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and authority of a server that speaks TLS; skipped where there is none to be had."""
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    if binary is None or shutil.which("openssl") is None:
        pytest.skip("needs a redis-server with TLS, which the embedded Valkey has not, and openssl")
    if "no TLS" in subprocess.run([binary, "--tls-port", "0", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("the redis-server on PATH was built without TLS")
    files, port = make_certificates(tmp_path_factory.mktemp("tls")), free_port()
    server = TestServer(
        "--tls-port", str(port), "--tls-cert-file", str(files["cert"]), "--tls-key-file", str(files["key"]),
        "--tls-ca-cert-file", str(files["ca"]), "--tls-auth-clients", "no", binary=binary,
    )  # fmt: skip
    yield port, files["ca"]
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
