"""The same on one partition, on four, and on a Cluster, which refuses a script that touches two slots."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from redisflow.backend import keys as k
from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission
from redisflow.settings import Settings
from tests.conftest import TestServer, assert_consistent
from tests.flows import (
    CHAIN,
    DIAMOND,
    ONE,
    SECOND,
    claim,
    complete,
    completed,
    fail,
    fan_out,
    history,
    plan,
    retry,
    scores,
    status,
    step,
    submit,
    travel,
    turn,
)


@pytest.fixture(params=["one partition", "four partitions", "cluster"])
async def placed(request: pytest.FixtureRequest) -> AsyncIterator[RedisBackend]:
    clustered = request.param == "cluster"
    server: TestServer = request.getfixturevalue("cluster_server" if clustered else "server")
    settings = Settings(
        url=server.url, namespace=f"p{uuid.uuid4().hex[:10]}", retry_deadline="20s",
        partitions={"one partition": 1, "four partitions": 4, "cluster": None}[request.param],
    )  # fmt: skip
    opened = RedisBackend(settings)
    await opened.initialize()
    assert len(opened.partitions) == {"one partition": 1, "four partitions": 4, "cluster": 16}[request.param]
    assert opened.server.clustered is clustered
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


async def drain(backend: RedisBackend) -> int:
    """A worker that completes all there is, partition by partition; how many steps."""
    count = 0
    for partition in range(len(backend.partitions)):
        seq, outcomes, again = 0, [], True
        while again:
            seq += 1
            reply = await turn(backend, seq, want=64, outcomes=outcomes, partition=partition)
            assert all(answer == 0 for answer in reply[4])
            outcomes = [part for run, name, *_ in reply[5] for part in completed(run.decode(), name.decode(), reply[1])]
            again = bool(outcomes) or bool(await scores(backend, backend.partitions[partition].expand))
            count += len(reply[5])
    return count


async def test_many_runs_spread_and_complete(placed: RedisBackend) -> None:
    results = await placed.submit(DIAMOND, [Submission(input=str(i), tags=["eu"]) for i in range(100)])
    used = {placed.partition(result.run_id) for result in results}
    assert len(used) > len(placed.partitions) // 2
    assert await drain(placed) == 400
    runs, total = await placed.list_runs("flow", status=["completed"], tags=["eu"])
    assert total == 100
    assert [run.created_at for run in runs] == sorted((run.created_at for run in runs), reverse=True)
    page, total = await placed.list_runs("flow", limit=7, offset=5)
    assert ([run.run_id for run in page], total) == ([run.run_id for run in runs[5:12]], 100)


async def test_step_by_step(placed: RedisBackend) -> None:
    run_id = await submit(placed, DIAMOND)
    await complete(placed, run_id, "a", "c", "b", "d")
    assert (await history(placed, run_id))[-2:] == ["StepCompleted d", "WorkflowCompleted"]


async def test_failures_and_retries(placed: RedisBackend) -> None:
    run_id = await submit(placed, plan(step("a", retry=retry(attempts=2)), step("b", "a")))
    await fail(placed, await claim(placed, run_id, "a"))
    await fail(placed, await claim(placed, run_id, "a"))
    assert await status(placed, run_id) == "failed"


async def test_skips_and_releases(placed: RedisBackend) -> None:
    run_id = await submit(placed, plan(step("a"), step("b", "a"), step("c", after=["b"])))
    await placed.release_step(await claim(placed, run_id, "a"))
    await placed.skip_step(await claim(placed, run_id, "a"), "no")
    await complete(placed, run_id, "c")
    assert await status(placed, run_id) == "completed"


async def test_claims_compete(placed: RedisBackend) -> None:
    run_id = await submit(placed, ONE)
    claims = await asyncio.gather(*(placed.claim_step(run_id, "a", f"w{i}") for i in range(50)))
    assert sum(found is not None for found in claims) == 1


async def test_keys_are_global(placed: RedisBackend) -> None:
    """The route of a keyed run is a hash of its key: so the record is found in the run's partition."""
    for n in range(20):
        answers = await asyncio.gather(*(placed.submit(ONE, [Submission(idempotency_key=f"k{n}")]) for _ in range(3)))
        assert len({answer[0].run_id for answer in answers}) == 1
        assert sum(answer[0].is_new for answer in answers) == 1
    assert (await placed.list_runs("flow"))[1] == 20


async def test_a_key_with_an_id_of_its_own_is_global_too(placed: RedisBackend) -> None:
    for n in range(20):
        first = await submit(placed, ONE, idempotency_key=f"k{n}", run_id=f"order-{n}")
        (again,) = await placed.submit(ONE, [Submission(idempotency_key=f"k{n}")])
        assert (again.run_id, again.is_new) == (first, False)
        (other,) = await placed.submit(ONE, [Submission(idempotency_key=f"k{n}", run_id=f"other-{n}")])
        assert (other.run_id, other.is_new) == (first, False)


async def test_a_child_shares_the_partition_of_its_parent(placed: RedisBackend) -> None:
    parent = await submit(placed, ONE)
    child = k.new_run_id(parent.partition(".")[0])
    assert placed.partition(child) == placed.partition(parent)


async def test_reclaim_cancel_sweep_delete(placed: RedisBackend) -> None:
    crashed = [await submit(placed, CHAIN, timeout_us=600 * SECOND) for _ in range(8)]
    for run_id in crashed:
        await claim(placed, run_id, "a")
    taken = []
    for partition in range(len(placed.partitions)):
        result = await placed.reclaim_round(partition, threshold_us=0, reclaimed_by="r1")
        taken += [found.run_id for found in result.reclaimed]
    assert sorted(taken) == sorted(crashed)
    for run_id in crashed[:4]:
        assert (await placed.cancel_run(run_id, "no")).cancelled
    timed_out, deleted = [], []
    for partition in range(len(placed.partitions)):
        await travel(placed, 700 * SECOND, partition)
        result = await placed.sweep_round(partition, retention_us=300 * SECOND)
        timed_out += result.timed_out
        deleted += result.deleted
    assert sorted(timed_out) == sorted(crashed[4:])
    assert sorted(deleted) == sorted(crashed[:4])
    assert await placed.delete_run(crashed[4])
    assert [run.status for run in await placed.get_runs(crashed) if run] == ["failed"] * 3


async def test_a_large_run(placed: RedisBackend) -> None:
    run_id = await submit(placed, fan_out(600))
    assert await drain(placed) == 600
    assert await status(placed, run_id) == "completed"


async def test_who_waits_is_told_the_status(placed: RedisBackend) -> None:
    live, over = await submit(placed, ONE), await submit(placed, ONE)
    await complete(placed, over, "a")
    assert await placed.status_of([live, "no-such-run", over]) == ["pending", "", "completed"]
    assert list(await scores(placed, placed.keys_of(live).waiters)) == [live]
