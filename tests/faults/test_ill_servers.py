"""Servers that are busy, loading, read-only, without disk, cut short: ridden out where it passes, told in one line where not."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from redisflow import Client, Reclaimer, Run, Settings, StepContext, Worker, Workflow
from redisflow.backend.beats import BeatLine
from redisflow.model.errors import ServerUnavailable
from tests.conftest import TestServer, assert_consistent, eventually, until
from tests.faults.harness import SHORT, ends_once, has, is_calm, more_than
from tests.flows_worker import brisk


@asynccontextmanager
async def under_load(
    settings: Settings, server: TestServer, count: int = 600, refused: str = "", may_lose: bool = False
) -> AsyncIterator[Client]:
    """A worker and a reclaimer at work on runs that are submitted one after the other; the body does the harm.

    What was acknowledged is done at the end; where the server has `refused`, the submitter was told so, and where it `may_lose`,
    what is there at all is done.
    """
    update = {**SHORT, "url": server.url, "retry_deadline": 30_000_000, "stale_after": 2_000_000}
    async with Client(settings=settings.model_copy(update=update)) as client:
        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        runs: list[Run[int]] = []

        async def produce() -> None:
            for first in range(0, count, 5):
                runs.extend(await client.submit_many(brisk, range(first, first + 5)))

        async with Worker(client, [brisk], concurrency=20):
            producing = asyncio.create_task(produce())
            await eventually(lambda: more_than(client, 20))
            yield client
            if refused:
                with pytest.raises(ServerUnavailable, match=refused):
                    await producing
            else:
                await asyncio.wait_for(producing, 60)
            assert len(runs) == count or refused
            there = await client.backend.get_runs([run.id for run in runs])
            kept = [number for number, state in enumerate(there) if state is not None]
            assert may_lose or len(kept) == len(runs)
            results = await asyncio.gather(*(runs[number].result(timeout=60) for number in kept))
            assert results == [2 * n + 1 for n in kept]
        sidecar.stop()
        await upkeep
        await ends_once(client, [runs[number] for number in kept], 2)
        await assert_consistent(client.backend)


@pytest.fixture
def own() -> Iterator[TestServer]:
    running = TestServer(
        "--appendonly", "yes", "--busy-reply-threshold", "50", "--loading-process-events-interval-bytes", "1024"
    )
    yield running
    running.close()


async def test_busy(settings: Settings, own: TestServer) -> None:
    """Somebody's endless script: everyone is told BUSY until it is killed."""
    async with under_load(settings, own):

        def hog() -> None:
            with own.client() as client, suppress(RedisError):
                client.eval("while true do end", 0)

        thread = threading.Thread(target=hog)
        thread.start()
        control = own.client()
        await asyncio.to_thread(until, lambda: _refuses(control, "BUSY"))
        await asyncio.sleep(0.5)
        control.script_kill()
        control.close()
        await asyncio.to_thread(thread.join)


async def test_read_only(settings: Settings, own: TestServer) -> None:
    """A failover that took the primary's role away, and gave it back."""
    async with under_load(settings, own):
        control = own.client()
        control.replicaof("127.0.0.1", 1)
        assert _refuses(control, "READONLY")
        await asyncio.sleep(1)
        control.replicaof("NO", "ONE")
        control.close()


@pytest.mark.slow
async def test_loading(settings: Settings, own: TestServer) -> None:
    async with under_load(settings, own):
        control = own.client()
        control.bgrewriteaof()
        await asyncio.to_thread(until, lambda: not control.info("persistence")["aof_rewrite_in_progress"])
        control.close()
        own.kill()
        own.options = (*own.options, "--key-load-delay", "1500")
        starting = asyncio.create_task(asyncio.to_thread(own.start))
        control = own.client()
        await eventually(lambda: _refuses(control, "LOADING"))
        control.close()
        await starting


async def test_no_disk(settings: Settings, own: TestServer) -> None:
    """MISCONF: submits are refused in one line, what runs goes on by itself when there is room again."""
    dump = own.folder / "dump.rdb"
    dump.mkdir()  # what a snapshot is renamed to cannot be replaced
    control = own.client()
    async with under_load(settings, own, 2000, "cannot persist to disk") as client:
        control.config_set("save", "3600 1")
        control.bgsave()
        await asyncio.to_thread(until, lambda: control.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(ServerUnavailable, match="cannot persist to disk"):
            await client.submit(brisk, 1)
        dump.rmdir()
        control.bgsave()
        await asyncio.to_thread(until, lambda: control.info("persistence")["rdb_last_bgsave_status"] == "ok")
        control.config_set("save", "")
    control.close()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of 64 MB."""
    folder = Path(tempfile.mkdtemp(prefix="rf-"))
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(folder)]
    mounted = subprocess.run(mounting, check=False, capture_output=True, text=True)
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"a tmpfs may not be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


async def test_a_disk_that_is_full(settings: Settings, small_disk: Path) -> None:
    """The AOF can't be written: nothing is acknowledged, and where there is room again all goes on."""
    server = TestServer("--appendonly", "yes", "--appendfsync", "everysec", folder=small_disk)
    try:
        async with under_load(settings, server, 2000, "cannot persist to disk") as client:
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            with server.client() as control:
                await asyncio.to_thread(until, lambda: control.info("persistence")["aof_last_write_status"] == "err")
                with pytest.raises(ServerUnavailable, match=r"cannot persist to disk.*nothing was written"):
                    await client.submit(brisk, 1)
                filler.unlink()
                await asyncio.to_thread(until, lambda: control.info("persistence")["aof_last_write_status"] == "ok")
    finally:
        server.close()


def _refuses(control: Any, word: str) -> bool:
    try:
        control.set("probe", 1, ex=1)
    except RedisError as error:
        return word in f"{getattr(error, 'status_code', '')} {error} {type(error).__name__.upper()}"
    return False


@pytest.mark.parametrize("fsync", ["everysec", pytest.param("always", marks=pytest.mark.slow)])
async def test_killed_at_random_points(settings: Settings, fsync: str) -> None:
    """With `always` whatever was acknowledged is there; with `everysec` Redis may put its writes off while the disk is slow."""
    server = TestServer("--appendonly", "yes", "--appendfsync", fsync)
    chance = random.Random(fsync)
    try:
        async with under_load(settings, server, 800, may_lose=fsync == "everysec"):
            for _ in range(4):
                await asyncio.sleep(chance.uniform(0.01, 0.25))
                server.kill()
                await asyncio.to_thread(server.start)
    finally:
        server.close()


@pytest.mark.slow
async def test_an_outage_under_5000_running_steps_reclaims_none(durable: TestServer, settings: Settings) -> None:
    count, flow, leave = 5000, Workflow("crowd", output=int), asyncio.Event()

    @flow.step(export=True)
    async def wait(ctx: StepContext) -> int:
        await leave.wait()
        return ctx.attempt

    update = {
        "stale_after": 5_000_000,
        "heartbeat_interval": 1_000_000,
        "reclaim_interval": 200_000,
        "url": durable.url,
    }
    async with Client(settings=settings.model_copy(update=update)) as client:
        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        async with Worker(client, [flow], concurrency=count):
            runs = await client.submit_many(flow, [None] * count)
            keys = client.backend.partitions[0]
            await eventually(lambda: _size(client, keys.running, count + 1), 60)
            await eventually(lambda: is_calm(client))
            assert durable.process is not None
            durable.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(2 * client.settings.stale_after / 1e6)
            durable.process.send_signal(signal.SIGCONT)
            before = time.time() * 1e6
            await eventually(lambda: _ticked(client, before + 2 * client.settings.stale_after), 30)
            await eventually(lambda: is_calm(client), 30)
            leave.set()
            await eventually(lambda: more_than(client, count - 1), 60)
        sidecar.stop()
        await upkeep
        assert not any([await has(client, run, "StepReclaimed") for run in runs[::10]])
        await assert_consistent(client.backend)


async def _size(client: Client, key: str, size: int) -> bool:
    return bool(await client.backend.client.zcard(key) == size)


async def _ticked(client: Client, after: float) -> bool:
    tick = await client.backend.client.hget(client.backend.partitions[0].meta, "tick")
    return tick is not None and int(tick) > after


async def test_an_aof_without_its_tail(settings: Settings) -> None:
    """Power loss: the last bytes are missing, wherever. A transition is there whole or not at all, and work goes on from there."""
    server = TestServer("--appendonly", "yes", "--aof-load-truncated", "yes")
    chance = random.Random(7)
    update = {**SHORT, "url": server.url, "retry_deadline": 30_000_000}
    try:
        async with Client(settings=settings.model_copy(update=update)) as client:
            for round_ in range(12):
                async with Worker(client, [brisk], concurrency=5):
                    await client.submit_many(brisk, range(30))
                    await eventually(lambda least=round_ * 10: more_than(client, least))
                server.kill()
                tail = max((server.folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime)
                with tail.open("rb+") as file:
                    file.truncate(max(0, tail.stat().st_size - chance.randrange(1, 5000)))
                await asyncio.to_thread(server.start)
                await assert_consistent(client.backend)
            sidecar = Reclaimer(client)
            upkeep = asyncio.create_task(sidecar.run())
            async with Worker(client, [brisk]):
                await eventually(lambda: _all_ended(client), 30)
            sidecar.stop()
            await upkeep
            assert (await client.runs(limit=1))[1] > 100
            await assert_consistent(client.backend)
    finally:
        server.close()


async def _all_ended(client: Client) -> bool:
    return (await client.runs(status=["pending", "running"], limit=1))[1] == 0


async def test_functions_that_a_full_server_takes_no_more_are_waited_for(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    server = TestServer()
    control = server.client()
    async with Client(settings=settings.model_copy(update={"url": server.url})) as client:
        async with Worker(client, [brisk]) as worker:
            await eventually(lambda: worker.asleep)
            control.config_set("maxmemory", 1)
            control.function_flush()
            await eventually(lambda: "the functions cannot be loaded" in caplog.text)
            with pytest.raises(ServerUnavailable, match="out of memory"):
                await client.submit(brisk, 1)
            control.config_set("maxmemory", 0)
            assert await (await client.submit(brisk, 2)).result(timeout=20) == 5
        await assert_consistent(client.backend)
    control.close()
    server.close()


async def test_a_heartbeat_tells_of_an_outage_once(
    durable: TestServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Client(settings=settings.model_copy(update={"url": durable.url})) as client:
        backend = client.backend
        line = BeatLine(backend, 0, "w1.boot", await backend.server.address_of(backend.partitions[0].meta), 5.0)
        with caplog.at_level(logging.INFO, "redisflow.worker"):
            assert line.beat("{}", []) == []
            durable.kill()
            assert [line.beat("{}", []) for _ in range(3)] == [None] * 3
            durable.start()
            assert line.beat("{}", []) == []
        line.close()
    first, second = [message for message in caplog.messages if "heartbeat" in message]
    assert first.startswith("heartbeat not delivered: ")
    assert second == "heartbeats are delivered again"
