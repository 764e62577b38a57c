"""A Cluster of real nodes that lose primaries, move slots and fall silent, under load."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from redisflow import Client, Reclaimer, StepContext, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from tests.clusters import TestCluster
from tests.conftest import assert_consistent, eventually
from tests.faults.load import spread_settings, under_load
from tests.flows_worker import brisk


@pytest.fixture
def replicated() -> Iterator[TestCluster]:
    """Three primaries with a replica each, of one's own."""
    running = TestCluster(replicas=1)
    yield running
    running.close()


@pytest.fixture
def lone() -> Iterator[TestCluster]:
    """Three primaries of one's own, that keep what they acknowledged, and serve on where one is gone."""
    running = TestCluster("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
    yield running
    running.close()


async def test_a_slot_moves_away_and_back_under_load(lone: TestCluster) -> None:
    async with Client(settings=spread_settings(lone.url)) as client:
        meta = client.backend.partitions[0].meta
        home = lone.owner(meta)
        away = next(node for node in lone.primaries if node is not home)
        async with under_load(client) as load:
            for target in (away, home, away):
                await load.grows(60)
                for _ in lone.migrating(meta, target):
                    await asyncio.sleep(0.005)
                assert lone.owner(meta) is target
            await load.grows(60)


async def test_all_nodes_start_anew_and_nothing_is_lost(lone: TestCluster) -> None:
    async with Client(settings=spread_settings(lone.url)) as client, under_load(client) as load:
        await load.grows(30)
        for node in lone.nodes:
            node.kill()
        retries = client.backend.server.retries
        await eventually(lambda: client.backend.server.retries > retries + 2)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in lone.nodes))
        await asyncio.to_thread(lone.settle)
        await load.grows(30)


@pytest.mark.parametrize("fault", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
async def test_a_replica_takes_the_place_of_its_primary(replicated: TestCluster, fault: str) -> None:
    async with Client(settings=spread_settings(replicated.url)) as client:
        victim = replicated.owner(client.backend.partitions[0].meta)
        async with under_load(client, failover=True) as load:
            await load.grows(60)
            if fault == "killed":
                victim.kill()
            else:
                victim.stop()
            await load.grows(60)  # every submit goes to all partitions
            if fault == "killed":
                await asyncio.to_thread(victim.start)
            else:
                victim.go_on()
            await asyncio.to_thread(replicated.settle)
            assert not victim.is_primary
            await load.grows(60)


@pytest.mark.slow
@pytest.mark.parametrize("offset", ["+60s", "-60s"])
async def test_a_failover_to_a_replica_whose_clock_is_a_minute_off(offset: str) -> None:
    preload = {"LD_PRELOAD": faketime(), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    cluster = TestCluster(replicas=1, replica_environment=preload)
    try:
        async with Client(settings=spread_settings(cluster.url)) as client:
            victim = cluster.owner(client.backend.partitions[0].meta)
            heir = cluster.replica_of(victim)
            off = int(heir.ask("TIME")[0]) - int(victim.ask("TIME")[0])
            assert abs(off) in (59, 60, 61)
            async with under_load(client, failover=True) as load:
                await load.grows(60)
                victim.kill()
                await load.grows(60)
                assert heir.is_primary
                await asyncio.sleep(
                    client.backend.settings.stale_after / 1e6 + 1
                )  # all that could be taken back would be
                await load.grows(60)
            for run in load.runs:
                events = await client.backend.load_wire_events(run.id)
                ids = [int(event["eventId"]) for event in events]
                assert ids == sorted(ids)
    finally:
        cluster.close()


def faketime() -> str:
    """The library that moves a process's clock; the test is skipped without it."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (Debian package faketime)")
    return str(found[0])


@pytest.mark.slow
async def test_a_node_is_restarted_and_nothing_is_lost(lone: TestCluster) -> None:
    async with Client(settings=spread_settings(lone.url)) as client, under_load(client) as load:
        for victim in lone.nodes[:2]:
            await load.grows(60)
            victim.kill()
            await asyncio.to_thread(victim.start)
        await asyncio.to_thread(lone.settle)
        await load.grows(60)


@pytest.mark.slow
async def test_a_silent_node_holds_up_no_other(lone: TestCluster) -> None:
    settings = spread_settings(lone.url, stale_after="3s", heartbeat_interval="300ms")
    async with Client(settings=settings) as client:
        backend = client.backend
        silent = lone.owner(backend.partitions[0].meta)
        others = [index for index, keys in enumerate(backend.partitions) if lone.owner(keys.meta) is not silent]
        inside, leave = asyncio.Semaphore(0), asyncio.Event()
        flow = Workflow("steady", output=int)

        @flow.step(export=True)
        async def wait(ctx: StepContext) -> int:
            inside.release()
            await leave.wait()
            return ctx.attempt

        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        async with Worker(client, [flow, brisk], concurrency=60):
            held = await client.submit_many(flow, [None] * 48)  # some on each partition, running all the while
            for _ in held:
                await inside.acquire()
            # what a workflow is, one node knows: let the client ask it before
            await (await client.submit(brisk, 1)).result(timeout=20)
            silent.stop()
            until, slowest = time.monotonic() + 4 * settings.stale_after / 1e6, 0.0
            while time.monotonic() < until:
                began = time.monotonic()
                runs = [await client.submit(brisk, n, run_id=_id_in(backend, others[n % 8])) for n in range(16)]
                assert await asyncio.gather(*(run.result(timeout=20) for run in runs)) == [2 * n + 1 for n in range(16)]
                slowest = max(slowest, time.monotonic() - began)
            silent.go_on()
            assert slowest < 6, slowest  # of a silence of twelve seconds, on a busy machine
            await asyncio.to_thread(lone.settle)
            leave.set()
            assert await asyncio.gather(*(run.result(timeout=30) for run in held)) == [1] * 48
        sidecar.stop()
        await upkeep
        for run in held:
            assert "StepReclaimed" not in {event["type"] for event in await backend.load_wire_events(run.id)}
        await assert_consistent(backend)


def _id_in(backend: RedisBackend, partition: int) -> str:
    """A fresh run id that lies in a partition."""
    return next(name for name in (uuid.uuid4().hex for _ in range(10_000)) if backend.partition(name) == partition)
