"""What replicas have of what was acknowledged, with a real replica that lags, dies and takes over."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from redisflow import Client, NotReplicated, Settings, Worker
from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import InvalidArgument, ServerUnavailable
from redisflow.sync import Client as BlockingClient
from tests.conftest import TestServer, eventually, until
from tests.flows_worker import brisk


@pytest.fixture
def pair() -> Iterator[tuple[TestServer, TestServer]]:
    """A primary and its replica, in step."""
    primary = TestServer("--repl-diskless-sync-delay", "0", tcp=True)
    replica = TestServer("--replicaof", "127.0.0.1", str(primary.port), tcp=True)
    with primary.client() as control:
        until(lambda: control.execute_command("WAIT", 1, 100) == 1 and _in_step(replica), 30)
    yield primary, replica
    for server in pair_of(primary, replica):
        server.close()


def pair_of(*servers: TestServer) -> Iterator[TestServer]:
    for server in servers:
        assert server.process is not None
        server.process.send_signal(signal.SIGCONT)
        yield server


def _in_step(replica: TestServer) -> bool:
    with replica.client() as control:
        return bool(control.info("replication")["master_link_status"] == "up")


@pytest.fixture
async def sure(pair: tuple[TestServer, TestServer], settings: Settings) -> AsyncIterator[Client]:
    update = {"url": pair[0].url, "replication_timeout": 300_000}
    async with Client(settings=settings.model_copy(update=update), durability="replicated") as client:
        yield client


async def test_a_confirmed_run_is_on_the_replica(pair: tuple[TestServer, TestServer], sure: Client) -> None:
    runs = await sure.submit_many(brisk, range(500))
    pair[0].kill()
    with pair[1].client() as control:
        control.replicaof("NO", "ONE")
        keys = sure.backend.partitions[0]
        assert all(control.exists(keys.run(run.id)) for run in runs)
    moved = sure.settings.model_copy(update={"url": pair[1].url})
    async with Client(settings=moved) as client, Worker(client, [brisk]):
        for number, run in enumerate(runs):
            assert await client.result(run.id, timeout=20) == 2 * number + 1


async def test_a_primary_that_lost_its_role_confirms_nothing(pair: tuple[TestServer, TestServer], sure: Client) -> None:
    run = await sure.submit(brisk, 1)
    with pair[0].client() as control:
        control.replicaof("127.0.0.1", str(pair[1].port))
    with pytest.raises(NotReplicated) as caught:
        await sure.backend.confirm_replicated([run.id], timeout_us=300_000)
    assert caught.value.run_ids == (run.id,)


async def test_a_replica_that_hangs_is_told(pair: tuple[TestServer, TestServer], sure: Client) -> None:
    replica = pair[1].process
    assert replica is not None
    replica.send_signal(signal.SIGSTOP)
    before = time.monotonic()
    with pytest.raises(NotReplicated, match=r"is stored and goes on, but no replica confirmed it in time") as caught:
        await sure.submit(brisk, 1, key="k")
    assert time.monotonic() - before < 3
    assert caught.value.stored
    (run_id,) = caught.value.run_ids
    assert (await sure.status(run_id)).status == "pending"
    replica.send_signal(signal.SIGCONT)
    again = await sure.submit(brisk, 1, key="k")  # as the message says
    assert (again.id, again.is_new) == (run_id, False)


async def test_without_any_replica(settings: Settings) -> None:
    update = {"replication_timeout": 50_000}
    async with Client(settings=settings.model_copy(update=update), durability="replicated") as client:
        with pytest.raises(NotReplicated) as caught:
            await client.submit_many(brisk, range(3))
        assert str(caught.value).startswith(f"run {caught.value.run_ids[0]} and 2 more is stored")
        assert len(caught.value.run_ids) == 3


async def test_what_a_failover_lost_is_not_confirmed_by_the_new_primary(sure: Client) -> None:
    run = await sure.submit(brisk, 1)
    keys = sure.backend.partitions[0]
    await sure.backend.client.delete(keys.run(run.id), keys.events(run.id))  # as a primary that never had it
    with pytest.raises(NotReplicated, match="lost by a failover: submit it again") as caught:
        await sure.backend.confirm_replicated([run.id], timeout_us=300_000)
    assert (caught.value.stored, caught.value.run_ids) == (False, (run.id,))


def test_the_blocking_client_has_it_too(pair: tuple[TestServer, TestServer], settings: Settings) -> None:
    given = settings.model_copy(update={"url": pair[0].url})
    with BlockingClient(settings=given, durability="replicated") as client:
        assert client.submit(brisk, 1).is_new


def test_another_word_is_refused(settings: Settings) -> None:
    with pytest.raises(InvalidArgument, match="durability='sure' is not allowed: acknowledged or replicated"):
        Client(settings=settings, durability="sure")  # type: ignore[arg-type]


async def test_too_few_replicas_to_write_is_ridden_out(pair: tuple[TestServer, TestServer], settings: Settings) -> None:
    primary, replica = pair
    with primary.client() as control:
        control.config_set("min-replicas-max-lag", 1)
        control.config_set("min-replicas-to-write", 1)
    backend = RedisBackend(settings.model_copy(update={"url": primary.url, "retry_deadline": 20_000_000}))
    await backend.initialize()
    async with Client(settings=backend.settings) as client, Worker(client, [brisk]):
        replica.kill()
        await eventually(lambda: _refuses(primary))
        hasty = Client(settings=backend.settings.model_copy(update={"retry_deadline": 100_000}))
        with pytest.raises(ServerUnavailable, match="fewer replicas than min-replicas-to-write"):
            async with hasty:
                await hasty.submit(brisk, 1)
        submitting = asyncio.create_task(client.submit(brisk, 1))
        await asyncio.to_thread(replica.start)
        assert await (await submitting).result(timeout=20) == 3
    await backend.close()


def _refuses(primary: TestServer) -> bool:
    from redis.exceptions import RedisError

    with primary.client() as control:
        try:
            control.set("probe", 1)
        except RedisError as error:
            return "NOREPLICAS" in f"{getattr(error, 'status_code', '')} {error}"
    return False
