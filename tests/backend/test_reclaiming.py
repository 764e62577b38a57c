"""reclaim and heartbeat: a lease lives while it is renewed; a step of a silent worker runs again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from redisflow.backend.beats import BeatLine
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim
from redisflow.model.retry import RetryTier
from tests.flows import (
    ONE,
    SECOND,
    claim,
    complete,
    done,
    fail,
    field,
    history,
    plan,
    reclaim,
    retry,
    scores,
    snapshot,
    start,
    status,
    step,
    submit,
    travel,
    typed,
)

THRESHOLD = 30 * SECOND
Beat = Callable[..., list[int]]


@pytest.fixture
async def beat(backend: RedisBackend) -> AsyncIterator[Beat]:
    """Sends one heartbeat for claims, as the heartbeat thread of worker w1 does, and gives the codes."""
    line = BeatLine(backend, 0, "w1.boot", await backend.server.address_of(backend.partitions[0].meta), 5.0)

    def send(*claims: Claim) -> list[int]:
        leases = [part for found in claims for part in (found.run_id, found.step_id, found.lease)]
        codes = line.beat('{"pid":1}', leases)
        assert codes is not None
        return codes

    yield send
    line.close()


async def test_a_stale_step_is_scheduled_again(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    await travel(backend, THRESHOLD + SECOND)
    result = await reclaim(backend, THRESHOLD)
    (taken,) = result.reclaimed
    assert (taken.run_id, taken.step_id, taken.attempt_number) == (claimed.run_id, "a", 1)
    assert (taken.worker_id, taken.workflow_slug) == ("w1", "flow")
    assert (result.more, result.grace_us) == (False, 0)
    assert (await history(backend, claimed.run_id))[4:] == ["StepReclaimed a", "StepScheduled a"]
    reclaimed, scheduled = (await typed(backend, claimed.run_id))[4:]
    assert (reclaimed.original_worker_id, reclaimed.reclaimed_by, reclaimed.attempt_number) == ("w1", "r1", 1)
    assert (reclaimed.last_heartbeat_us, reclaimed.stale_threshold_us) == (claimed.lease, THRESHOLD)
    assert reclaimed.stale_duration_us == reclaimed.timestamp_us - claimed.lease > THRESHOLD
    assert (scheduled.reason, scheduled.attempt_number) == ("retry", 2)
    found = await field(backend, claimed.run_id, "a")
    assert (found.status, found.crashes, found.failures, found.kind, found.ended) == (
        "s",
        1,
        0,
        "r",
        claimed.lease,
    )
    assert await scores(backend, backend.partitions[0].running) == {}
    assert (await claim(backend, claimed.run_id, "a", worker="w2")).attempt_number == 2


async def test_exactly_the_threshold_is_not_stale(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    threshold = 900_000
    # the next call's time is one more than the clock, where that is ahead of the server's
    await backend.client.hset(backend.partitions[0].meta, "clock", claimed.lease + threshold - 1)  # type: ignore[misc]
    assert (await reclaim(backend, threshold)).reclaimed == ()
    assert len((await reclaim(backend, threshold)).reclaimed) == 1
    reclaimed = (await typed(backend, claimed.run_id, "StepReclaimed"))[0]
    assert reclaimed.stale_duration_us == threshold + 1


async def test_crashes_have_a_budget_of_their_own(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=2, crashes=2))))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    await fail(backend, await claim(backend, run_id, "a"))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    found = await field(backend, run_id, "a")
    assert (found.status, found.attempt, found.failures, found.crashes) == ("s", 4, 1, 2)
    await complete(backend, run_id, "a")
    assert await status(backend, run_id) == "completed"


async def test_one_crash_too_many_fails_the_step(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=9, crashes=1)), step("b")))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    await claim(backend, run_id, "a")
    assert len((await reclaim(backend)).reclaimed) == 1
    assert (await history(backend, run_id))[-3:] == ["StepReclaimed a", "StepFailed a", "WorkflowFailed"]
    failed, ended = (await typed(backend, run_id))[-2:]
    assert (failed.terminal, failed.failure_reason, failed.attempt_number) == (True, "worker-crash", 2)
    assert (ended.failure_reason, ended.failed_step) == ("worker-crash", "a")
    assert failed.error.name == "WorkerCrashed"
    assert len(set(failed.error_fingerprints.to_wire().values())) == 3
    assert await scores(backend, backend.partitions[0].levels) == {}


async def test_one_crash_too_many_leaves_the_others_where_the_run_is_to_finish(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(crashes=0)), step("b"), on_error="finish"))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    assert (await history(backend, run_id))[-2:] == ["StepReclaimed a", "StepFailed a"]
    await complete(backend, run_id, "b")
    assert (await typed(backend, run_id, "WorkflowFailed"))[0].failure_reason == "worker-crash"


async def test_a_crash_waits_for_the_retry_delay(backend: RedisBackend) -> None:
    tier = RetryTier(attempts=3, delay_us=7 * SECOND, factor=2, jitter=0)
    run_id = await submit(backend, plan(step("a", retry=retry(tier))))
    for _ in range(2):
        await claim(backend, run_id, "a")
        await reclaim(backend)
        await travel(backend, 7 * SECOND)
    scheduled = (await typed(backend, run_id, "StepScheduled"))[1:]
    assert [e.available_at_us - e.timestamp_us for e in scheduled] == [7 * SECOND] * 2


async def test_rounds_side_by_side_take_a_step_once(backend: RedisBackend) -> None:
    run_ids = [(await start(backend, ONE)).run_id for _ in range(20)]
    rounds = await asyncio.gather(*(reclaim(backend) for _ in range(10)))
    taken = [found.run_id for result in rounds for found in result.reclaimed]
    assert sorted(taken) == sorted(run_ids)


async def test_a_round_takes_a_hundred_and_says_that_there_is_more(backend: RedisBackend) -> None:
    names = [f"s{i}" for i in range(130)]
    run_id = await submit(backend, plan(*(step(name) for name in names)))
    await asyncio.gather(*(claim(backend, run_id, name) for name in names))
    first, second = await reclaim(backend), await reclaim(backend)
    assert (len(first.reclaimed), first.more) == (100, True)
    assert (len(second.reclaimed), second.more) == (30, False)


async def test_an_outage_is_no_crash_of_every_worker(backend: RedisBackend) -> None:
    options = {"tick_us": SECOND}
    claimed = await start(backend, ONE)
    first = await reclaim(backend, THRESHOLD, **options)  # the first round ever: nobody looked before
    assert first.reclaimed == ()
    assert first.grace_us == THRESHOLD
    for _ in range(4):
        await travel(backend, 10 * SECOND)
        await reclaim(backend, THRESHOLD, **options)
    assert (await field(backend, claimed.run_id, "a")).crashes == 1
    again = await claim(backend, claimed.run_id, "a")
    await travel(backend, 100 * SECOND)  # nobody looked for so long: the living get one threshold to say so
    result = await reclaim(backend, THRESHOLD, **options)
    assert result.reclaimed == ()
    assert result.grace_us == THRESHOLD
    done(await backend.complete_step(again, "1"))


async def test_without_a_tick_there_is_no_grace(backend: RedisBackend) -> None:
    await start(backend, ONE)
    await travel(backend, 1000 * SECOND)
    result = await reclaim(backend, THRESHOLD)
    assert (len(result.reclaimed), result.grace_us) == (1, 0)


async def test_an_ended_run_is_not_reclaimed(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    await backend.cancel_run(claimed.run_id)
    before = await snapshot(backend)
    assert (await reclaim(backend)).reclaimed == ()
    assert await snapshot(backend) == before


async def test_a_heartbeat_renews_the_lease(backend: RedisBackend, beat: Beat) -> None:
    claimed = await start(backend, ONE)
    keys = backend.partitions[0]
    await travel(backend, 20 * SECOND)
    assert beat(claimed) == [Reply.OK]
    renewed = (await scores(backend, keys.running))[f"{claimed.run_id}|a"]
    assert renewed >= claimed.lease + 20 * SECOND
    assert (await history(backend, claimed.run_id))[-1] == "StepStarted a"
    await travel(backend, 20 * SECOND)
    assert (await reclaim(backend, THRESHOLD)).reclaimed == ()
    await travel(backend, 11 * SECOND)
    assert len((await reclaim(backend, THRESHOLD)).reclaimed) == 1
    assert (await typed(backend, claimed.run_id, "StepReclaimed"))[0].last_heartbeat_us == renewed
    assert set(await scores(backend, keys.workers)) == {"w1.boot"}


async def test_a_heartbeat_event_at_most_once_a_minute(backend: RedisBackend, beat: Beat) -> None:
    claimed = await start(backend, ONE)
    for _ in range(13):
        await travel(backend, 10 * SECOND)
        assert beat(claimed) == [Reply.OK]
    events = await typed(backend, claimed.run_id, "StepHeartbeat")
    assert [(e.worker_id, e.attempt_number) for e in events] == [("w1.boot", 1)] * 2
    assert events[1].timestamp_us - events[0].timestamp_us >= 50 * SECOND


async def test_a_heartbeat_names_what_is_no_longer_its_own(backend: RedisBackend, beat: Beat) -> None:
    held, taken, ended, gone = [await start(backend, ONE) for _ in range(4)]
    lost = await start(backend, ONE)
    await backend.release_step(taken)
    again = await claim(backend, taken.run_id, "a", worker="w2")
    await backend.release_step(lost)
    await backend.cancel_run(ended.run_id)
    await backend.cancel_run(gone.run_id)
    await backend.delete_run(gone.run_id)
    before = await scores(backend, backend.partitions[0].running)
    assert beat(held, taken, lost, ended, gone) == [
        Reply.OK,
        Reply.STALE,
        Reply.STALE,
        Reply.RUN_ENDED,
        Reply.GONE,
    ]
    after = await scores(backend, backend.partitions[0].running)
    assert set(after) == {f"{held.run_id}|a", f"{again.run_id}|a"}
    assert after[f"{held.run_id}|a"] > before[f"{held.run_id}|a"]
    assert after[f"{again.run_id}|a"] == before[f"{again.run_id}|a"]


async def test_a_heartbeat_without_leases_says_that_the_worker_lives(backend: RedisBackend, beat: Beat) -> None:
    assert beat() == []
    keys = backend.partitions[0]
    assert set(await scores(backend, keys.workers)) == {"w1.boot"}
    assert await backend.client.hget(keys.worker("w1.boot"), "info") == b'{"pid":1}'  # type: ignore[misc]


async def test_many_leases_in_one_heartbeat(backend: RedisBackend, beat: Beat) -> None:
    names = [f"s{i}" for i in range(450)]
    runs = [await submit(backend, plan(*(step(name) for name in names))) for _ in range(3)]
    claims = await asyncio.gather(*(claim(backend, run_id, name) for run_id in runs for name in names))
    await travel(backend, 61 * SECOND)
    assert beat(*claims) == [Reply.OK] * 1350
    beats = await scores(backend, backend.partitions[0].running)
    assert len(beats) == 1350
    assert min(beats.values()) > max(found.lease for found in claims)
