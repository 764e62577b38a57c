"""Servers that cannot be used: each says in one line what is wrong and what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis._parsers.base import BaseParser
from redis.asyncio.client import Pipeline

from redisflow import Client, Run, ServerUnavailable, Settings, Worker, Workflow
from redisflow.backend.location import redact
from redisflow.backend.patience import explain, is_passing
from redisflow.backend.redis.core import check_server
from redisflow.model.errors import RedisflowError, ServerUnsuitable
from tests.conftest import TestServer, assert_consistent, eventually, free_port

flow = Workflow("big", input=str)


@flow.step
async def keep(text: str) -> None: ...


async def test_without_a_server_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDISFLOW_URL", raising=False)
    with pytest.raises(ServerUnavailable, match=r"set REDISFLOW_URL.*redisflow dev"):
        await Client(settings=Settings(home=tmp_path / "none")).open()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://localhost:port"])
async def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ServerUnavailable, match=r"(?s)not understood.*redis://host:6379/0"):
        await Client(url).open(deadline="300ms")


@pytest.mark.parametrize("kind", ["tcp", "unix", "name"])
async def test_an_unreachable_server_within_the_deadline(kind: str, tmp_path: Path) -> None:
    url = {
        "tcp": f"redis://127.0.0.1:{free_port()}",
        "unix": f"unix://{tmp_path}/none",
        "name": "redis://no.invalid:1",
    }[kind]
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match="Check that the server runs and the URL"):
        await Client(url).open(deadline="300ms")
    assert time.monotonic() - began < 10


async def test_the_password_is_told_to_nobody() -> None:
    url = f"redis://me:secret@127.0.0.1:{free_port()}"
    with pytest.raises(ServerUnavailable) as caught:
        await Client(url).open(deadline=0)
    assert "secret" not in str(caught.value)
    assert "me:***@" in str(caught.value)
    assert redact("redis://:secret@host:1/0") == "redis://:***@host:1/0"
    assert redact("redis://host:1/0") == "redis://host:1/0"
    assert redact("redis+sentinel://u:x@a:1,b:2/s?sentinel_password=y&ssl_ca_certs=z") == (
        "redis+sentinel://u:***@a:1,b:2/s?sentinel_password=***&ssl_ca_certs=z"
    )


@pytest.fixture
def locked() -> Iterator[TestServer]:
    server = TestServer("--maxclients", "100", tcp=True)
    control = server.client()
    control.config_set("requirepass", "open sesame")
    control.close()
    yield server
    server.close()


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
async def test_a_login_that_is_refused_is_told_at_once(locked: TestServer, login: str) -> None:
    began = time.monotonic()
    with pytest.raises(ServerUnavailable, match="Check user, password and ACL"):
        await Client(f"redis://{login}127.0.0.1:{locked.port}").open(deadline="20s")
    assert time.monotonic() - began < 10


async def test_with_the_password_everything_works(locked: TestServer) -> None:
    async with Client(f"redis://:open%20sesame@127.0.0.1:{locked.port}/3") as client, Worker(client, [flow]):
        assert await (await client.submit(flow, "x")).result(timeout=10) is None
        await assert_consistent(client.backend)


async def test_a_read_only_replica_is_named_as_such() -> None:
    primary = TestServer("--repl-diskless-sync-delay", "0", tcp=True)
    replica = TestServer("--replicaof", "127.0.0.1", str(primary.port))
    try:
        settings = Settings(url=replica.url, retry_deadline="300ms")
        observer = replica.client()
        await eventually(lambda: observer.info("replication")["master_link_status"] == "up", 20)
        observer.close()
        with pytest.raises(ServerUnavailable, match="read-only replica: point the URL at the primary"):
            await Client(settings=settings).open()
    finally:
        replica.close()
        primary.close()


async def test_the_deadline_of_open_holds_for_a_read_only_replica_too() -> None:
    primary = TestServer("--repl-diskless-sync-delay", "0", tcp=True)
    replica = TestServer("--replicaof", "127.0.0.1", str(primary.port))
    try:
        settings = Settings(url=replica.url, retry_deadline="4s")
        observer = replica.client()
        await eventually(lambda: observer.info("replication")["master_link_status"] == "up", 20)
        observer.close()
        began = time.monotonic()
        with pytest.raises(ServerUnavailable):
            await Client(settings=settings).open(deadline="300ms")
        assert time.monotonic() - began < 3
    finally:
        replica.close()
        primary.close()


held = Workflow("held", input=str)
leave: dict[str, asyncio.Event] = {}


@held.step
async def hold(name: str) -> None:
    await leave[name].wait()


@pytest.fixture
async def full() -> AsyncIterator[tuple[Client, Run[object]]]:
    """A client of a server without memory, and a run that was accepted and started before."""
    server = TestServer("--maxmemory-policy", "noeviction")
    leave["it"] = asyncio.Event()
    control = server.client()
    try:
        async with Client(settings=Settings(url=server.url, retry_deadline="1s")) as client:
            async with Worker(client, [held]) as worker:
                run = await client.submit(held, "it")
                await eventually(lambda: worker.running)
                control.config_set("maxmemory", 100_000)
                yield client, run
            control.config_set("maxmemory", 0)
            await assert_consistent(client.backend)
    finally:
        control.close()
        server.close()


async def test_without_memory_submits_are_refused_and_what_runs_still_ends(
    full: tuple[Client, Run[object]],
) -> None:
    client, run = full
    with pytest.raises(ServerUnavailable, match=r"out of memory.*raise maxmemory.*nothing was written"):
        await client.submit(held, "other")
    assert (await client.runs())[1] == 1

    async def ended() -> bool:
        return (await run.status()).status == "completed"

    leave["it"].set()
    await eventually(ended)


async def test_without_memory_a_run_can_be_cancelled(full: tuple[Client, Run[object]]) -> None:
    _, run = full
    assert (await run.cancel()).cancelled
    assert (await run.status()).status == "cancelled"


async def test_without_memory_a_result_can_be_waited_for(full: tuple[Client, Run[object]]) -> None:
    _, run = full
    leave["it"].set()
    assert await run.result(timeout=10) is None


async def test_a_server_that_evicts_is_refused() -> None:
    server = TestServer("--maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(ServerUnsuitable, match="CONFIG SET maxmemory-policy noeviction"):
            await Client(server.url).open()
        control = server.client()
        assert control.dbsize() == 0
        control.close()
    finally:
        server.close()


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "2.8.24"])
def test_a_server_that_is_too_old_is_refused(version: str) -> None:
    with pytest.raises(ServerUnsuitable, match=rf"Redis {version} is too old: 7\.0 or newer"):
        check_server({"redis_version": version})


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.0", "255.255.255"])
def test_a_server_that_will_do(version: str) -> None:
    check_server({"redis_version": version, "maxmemory_policy": "noeviction"})


async def test_partitions_are_for_good(settings: Settings) -> None:
    async with Client(settings=settings.model_copy(update={"partitions": 3})) as client:
        assert len(client.backend.partitions) == 3
        async with Client(settings=settings) as other:
            assert len(other.backend.partitions) == 3
        with pytest.raises(ServerUnsuitable, match="has 3 partitions for good, not 2"):
            await Client(settings=settings.model_copy(update={"partitions": 2})).open()


@pytest.mark.parametrize(
    ("line", "passing"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("LOADING Redis is loading the dataset in memory", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", True),
        ("CLUSTERDOWN The cluster is down", True),
        ("MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", True),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", True),
        ("MOVED 3999 127.0.0.1:6381", True),
        ("ASK 3999 127.0.0.1:6381", True),
        ("ERR max number of clients reached", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("NOAUTH Authentication required.", False),
        ("WRONGPASS invalid username-password pair or user is disabled.", False),
        ("NOPERM User nobody has no permissions to run the 'evalsha' command", False),
        ("ERR unknown command 'EVALSHA'", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
    ],
)
def test_what_passes_is_ridden_out_and_what_lasts_is_told(line: str, passing: bool) -> None:
    error = BaseParser.parse_error(line)
    assert is_passing(error) is passing
    told = explain(error, "redis://:secret@host:1/0")
    assert isinstance(told, RedisflowError)
    assert "secret" not in str(told)
    assert "\n" not in str(told)
    Pipeline.annotate_exception(None, error, 2, ["HVALS", "a (b) key"])  # type: ignore[arg-type]
    assert str(error).startswith("Command # 2 (HVALS a (b) key) of pipeline caused error: ")
    assert is_passing(error) is passing
    assert "of pipeline" not in str(explain(error, "redis://host:1/0"))
