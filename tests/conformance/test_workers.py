"""Workers: who runs what, who was seen, and what they have done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from redisflow import Client, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.workers import Workers
from redisflow.backend.types import Submission
from redisflow.model.analytics import ActiveWorker, TimeRange
from redisflow.model.errors import InvalidArgument
from redisflow.model.workflow import Plan, PlanStep
from redisflow.settings import Settings
from tests.conftest import TestServer, assert_consistent, eventually

MINUTE = 60_000_000
SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "analytics.schema.json").read_text())
PLAN = Plan(slug="work", name="work", steps=tuple(PlanStep(id=name, name=name, queue="work") for name in "abc"))


class Backend(RedisBackend, Workers):
    """The backend with its workers."""


@pytest.fixture(params=["one partition", "three", "Cluster"])
async def backend(
    settings: Settings, cluster_server: TestServer, request: pytest.FixtureRequest
) -> AsyncIterator[Backend]:
    update: dict[str, Any] = {"partitions": 1 if request.param == "one partition" else 3}
    if request.param == "Cluster":
        update["url"] = cluster_server.url
    opened = Backend(settings.model_copy(update=update))
    await opened.initialize()
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


async def submit(backend: Backend, count: int = 1) -> list[str]:
    return [result.run_id for result in await backend.submit(PLAN, [Submission() for _ in range(count)])]


def fits(name: str, value: Any) -> bool:
    root = SCHEMA.get("$defs") or SCHEMA.get("definitions") or SCHEMA
    jsonschema.validate(value.to_wire(), root[name])
    return True


async def test_nobody_works(backend: Backend) -> None:
    found = await backend.get_active_workers()
    assert fits("ActiveWorkersResult", found)
    assert (found.workers, found.total_active_workers, found.total_running_steps) == ((), 0, 0)
    assert found.stale_threshold_us == 30_000_000
    assert await backend.get_worker_by_id("nobody") is None


async def test_what_workers_run_and_have_done(backend: Backend) -> None:
    first, second = await submit(backend, 2)
    done = await backend.claim_step(first, "a", "w-1", slot_index=0, worker_concurrency=4)
    failed = await backend.claim_step(first, "b", "w-2")
    held = await backend.claim_step(first, "c", "w-1", slot_index=2, worker_concurrency=4)
    other = await backend.claim_step(second, "a", "w-1", slot_index=3, worker_concurrency=4)
    assert done
    assert failed
    assert held
    assert other
    await backend.complete_step(done, "1")
    third = (await submit(backend))[0]
    busy = await backend.claim_step(third, "a", "w-3")
    assert busy
    await backend.fail_step(failed, {"message": "boom"}, ["x"] * 5, fatal=True)  # and ends the run
    found = await backend.get_active_workers()
    assert fits("ActiveWorkersResult", found)
    assert [worker.currently_running_steps for worker in found.workers] == [1, 1, 0]
    by_id = {worker.worker_id: worker for worker in found.workers}
    assert found.total_active_workers == found.total_running_steps == 2
    w1, w2 = by_id["w-1"], by_id["w-2"]
    assert (w1.total_steps_processed, w1.failed_steps, w1.worker_concurrency) == (1, 0, 4)
    assert [(s.workflow_slug, s.run_id, s.step_id, s.slot_index) for s in w1.active_steps] == [("work", second, "a", 3)]
    started = w1.active_steps[0].started_at_us
    assert started == w1.active_steps[0].last_heartbeat_us
    assert started >= other.lease, "the event's time: that of its call and its number in it"
    assert (w2.total_steps_processed, w2.failed_steps, w2.worker_concurrency) == (1, 1, None)
    assert await backend.get_worker_by_id("w-1") == w1
    assert await backend.get_worker_by_id("w-2") == w2


async def test_most_active_steps_come_first(backend: Backend) -> None:
    runs = await submit(backend, 3)
    for run_id, worker in zip(runs, ("few", "many", "many"), strict=True):
        assert await backend.claim_step(run_id, "a", worker)
    assert await backend.claim_step(runs[0], "b", "late")
    found = await backend.get_active_workers()
    assert [(w.worker_id, w.currently_running_steps) for w in found.workers] == [("many", 2), ("late", 1), ("few", 1)]
    assert (found.total_active_workers, found.total_running_steps) == (3, 4)


async def test_a_worker_is_listed_while_it_runs_or_was_seen_lately(backend: Backend) -> None:
    run_id = (await submit(backend))[0]
    ended = await backend.claim_step(run_id, "a", "idle")
    assert ended
    await backend.complete_step(ended, "1")
    assert await backend.claim_step(run_id, "b", "busy")
    seen = {worker.worker_id: worker.last_seen_us for worker in (await backend.get_active_workers()).workers}
    assert set(seen) == {"idle", "busy"}

    def ids(workers: tuple[ActiveWorker, ...]) -> list[str]:
        return [worker.worker_id for worker in workers]

    assert ids((await backend.get_active_workers(0)).workers) == ["busy"]
    every = await backend.get_active_workers(0, include_inactive=True)
    assert ids(every.workers) == ["busy", "idle"]
    assert every.total_active_workers == 1
    until = seen["idle"]
    for span in ((0, until), TimeRange(start_us=0, end_us=until, duration_us=until), {"start_us": 0, "end_us": until}):
        found = await backend.get_active_workers(time_range=span)
        assert (ids(found.workers), found.total_active_workers) == (["idle"], 0)
    assert ids((await backend.get_active_workers(time_range=(until - MINUTE, until - 1))).workers) == []


async def test_steps_taken_back_count_for_their_worker(backend: Backend) -> None:
    run_id = (await submit(backend))[0]
    assert await backend.claim_step(run_id, "a", "dead")
    for partition in range(len(backend.partitions)):
        await backend.reclaim_round(partition, threshold_us=0, reclaimed_by="r")
    found = await backend.get_worker_by_id("dead")
    assert found is not None
    assert (found.reclaimed_from_count, found.currently_running_steps, found.total_steps_processed) == (1, 0, 0)


async def test_a_worker_of_ours(client: Client) -> None:
    flow, begun, free = Workflow("ours"), asyncio.Event(), asyncio.Event()

    @flow.step
    async def only() -> None:
        begun.set()
        await free.wait()

    backend = Backend(client.backend.settings)
    await backend.initialize()
    try:
        async with Worker(client, [flow], concurrency=7, worker_id="ours") as worker:

            async def known() -> bool:
                return await backend.get_worker_by_id(worker.id) is not None

            await eventually(known)
            idle = await backend.get_worker_by_id(worker.id)
            run = await client.submit(flow)
            await asyncio.wait_for(begun.wait(), 10)
            busy = await backend.get_worker_by_id(worker.id)
            free.set()
            await run.result(timeout=10)
    finally:
        await backend.close()
    assert idle is not None
    assert (idle.currently_running_steps, idle.worker_concurrency) == (0, 7)
    assert busy is not None
    assert (busy.currently_running_steps, busy.worker_concurrency) == (1, 7)
    assert busy.active_steps[0].run_id == run.id
    assert busy.active_steps[0].slot_index is not None
    assert fits("ActiveWorker", busy)


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None, "1"])
async def test_a_wrong_threshold_is_refused(backend: Backend, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="stale_threshold_us"):
        await backend.get_active_workers(wrong)


@pytest.mark.parametrize("wrong", [(2, 1), (1,), (1, None), ("a", "b"), {"start_us": 1}])
async def test_a_wrong_time_range_is_refused(backend: Backend, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match="time_range"):
        await backend.get_active_workers(time_range=wrong)
