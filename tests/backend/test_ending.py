"""cancel, sweep and delete: how a run ends from outside, and how nothing of it is left."""

from __future__ import annotations

import asyncio

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import RunNotFound, TransitionRefused
from tests.flows import (
    CHAIN,
    ENDS,
    ONE,
    PAIR,
    SECOND,
    claim,
    complete,
    history,
    plan,
    reclaim,
    scores,
    snapshot,
    start,
    status,
    statuses,
    step,
    submit,
    travel,
    typed,
)


async def test_a_pending_run_is_cancelled(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR, timeout_us=60 * SECOND)
    result = await backend.cancel_run(run_id, "no longer needed")
    assert (result.cancelled, result.status) == (True, "cancelled")
    assert (await history(backend, run_id))[3:] == ["WorkflowCancelled"]
    cancelled = (await typed(backend, run_id, "WorkflowCancelled"))[0]
    assert (cancelled.reason, cancelled.completed_steps, cancelled.workflow_attempt_number) == (
        "no longer needed",
        0,
        1,
    )
    state = await backend.get_run(run_id)
    assert state is not None
    assert (state.status, state.completed_at) == ("cancelled", cancelled.timestamp_us)
    assert cancelled.duration_us == cancelled.timestamp_us - state.created_at
    keys = backend.partitions[0]
    for key in (
        keys.scheduled("flow", 0),
        keys.levels,
        keys.deadlines,
        keys.running,
        keys.index("flow", "pending"),
    ):
        assert await scores(backend, key) == {}
    assert await scores(backend, keys.ended) == {run_id: state.completed_at}
    assert await scores(backend, keys.index("flow", "cancelled")) == {run_id: state.created_at}


async def test_a_running_run_is_cancelled(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), step("c")))
    await complete(backend, run_id, "a")
    await claim(backend, run_id, "b")
    assert (await backend.cancel_run(run_id)).cancelled
    cancelled = (await typed(backend, run_id, "WorkflowCancelled"))[0]
    assert (cancelled.reason, cancelled.completed_steps) == (None, 1)
    # the run's end is decided; its steps are left where they were
    assert await statuses(backend, run_id) == {"a": "completed", "b": "running", "c": "scheduled"}
    keys = backend.partitions[0]
    assert await scores(backend, keys.running) == {}
    assert await scores(backend, keys.levels) == {}


async def test_a_terminal_run_is_left_as_it_is(backend: RedisBackend) -> None:
    for end in ("completed", "cancelled"):
        claimed = await start(backend, ONE)
        await (backend.complete_step(claimed, "1") if end == "completed" else backend.cancel_run(claimed.run_id))
        before = await snapshot(backend)
        result = await backend.cancel_run(claimed.run_id)
        assert (result.cancelled, result.status) == (False, end)
        assert await snapshot(backend) == before


async def test_there_is_nothing_to_cancel(backend: RedisBackend) -> None:
    before = await snapshot(backend)
    with pytest.raises(RunNotFound):
        await backend.cancel_run("no-such-run")
    assert await snapshot(backend) == before


async def test_of_many_ends_at_once_one_is_recorded(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    await asyncio.gather(*(backend.cancel_run(claimed.run_id) for _ in range(10)), backend.complete_step(claimed, "1"))
    ends = [line for line in await history(backend, claimed.run_id) if line in ENDS]
    assert len(ends) == 1


async def test_a_late_run_times_out(backend: RedisBackend) -> None:
    pending = await submit(backend, CHAIN, timeout_us=10 * SECOND)
    running = await submit(backend, CHAIN, timeout_us=10 * SECOND)
    delayed = await submit(backend, CHAIN, timeout_us=10 * SECOND, delay_us=10 * SECOND)
    await claim(backend, running, "a")
    await travel(backend, 9 * SECOND)
    assert (await backend.sweep_round(0, retention_us=10**12)).timed_out == ()
    await travel(backend, 2 * SECOND)
    result = await backend.sweep_round(0, retention_us=10**12)
    assert set(result.timed_out) == {pending, running}
    assert (result.deleted, result.more) == ((), False)
    for run_id in (pending, running):
        assert (await history(backend, run_id))[-1] == "WorkflowFailed"
        ended = (await typed(backend, run_id, "WorkflowFailed"))[0]
        assert (ended.failure_reason, ended.failed_step, ended.error.name) == ("timeout", None, "RunTimeout")
        assert await status(backend, run_id) == "failed"
    keys = backend.partitions[0]
    assert set(await scores(backend, keys.deadlines)) == {f"run:{delayed}"}
    assert await scores(backend, keys.running) == {}
    assert (await backend.sweep_round(0, retention_us=10**12)).timed_out == ()


async def test_a_run_in_time_does_not_time_out(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE, timeout_us=10 * SECOND)
    await complete(backend, run_id, "a")
    await travel(backend, 60 * SECOND)
    assert (await backend.sweep_round(0, retention_us=10**12)).timed_out == ()
    assert await status(backend, run_id) == "completed"


async def test_a_sweep_takes_a_hundred_and_says_that_there_is_more(backend: RedisBackend) -> None:
    from redisflow.backend.types import Submission

    await backend.submit(ONE, [Submission(timeout_us=SECOND)] * 130)
    await travel(backend, 2 * SECOND)
    first, second = [await backend.sweep_round(0, retention_us=10**12) for _ in range(2)]
    assert (len(first.timed_out), first.more) == (100, True)
    assert (len(second.timed_out), second.more) == (30, False)


async def test_nothing_is_left_of_a_deleted_run(backend: RedisBackend) -> None:
    await submit(backend, ONE)  # registers the plan, and stays
    before = set(await snapshot(backend))
    run_id = await submit(
        backend,
        CHAIN,
        idempotency_key="k",
        tags=["eu", "vip"],
        timeout_us=60 * SECOND,
        metadata={"x": 1},
        priority=3,
    )
    await backend.status_of([run_id])  # somebody waits for it
    await complete(backend, run_id, "a", "b")
    assert await backend.delete_run(run_id) is True
    after = await snapshot(backend)
    plans = {key for key in after if b":plan:" in key}
    assert set(after) - plans <= before
    assert not [key for key, value in after.items() if run_id.encode() in value]
    assert await backend.get_run(run_id) is None
    assert await backend.load_events("flow", run_id) == []
    assert await backend.delete_run(run_id) is False


async def test_a_key_is_free_again_when_its_run_is_deleted(backend: RedisBackend) -> None:
    first = await submit(backend, ONE, idempotency_key="k")
    await backend.cancel_run(first)
    await backend.delete_run(first)
    assert await submit(backend, ONE, idempotency_key="k") != first


async def test_a_live_run_is_not_deleted(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    before = await snapshot(backend)
    with pytest.raises(TransitionRefused, match="has not ended"):
        await backend.delete_run(run_id)
    assert await snapshot(backend) == before


async def test_retention_deletes_the_ended(backend: RedisBackend) -> None:
    old, fresh, live = [await submit(backend, ONE, tags=["eu"]) for _ in range(3)]
    await complete(backend, old, "a")
    await travel(backend, 100 * SECOND)
    await complete(backend, fresh, "a")
    result = await backend.sweep_round(0, retention_us=50 * SECOND)
    assert result.deleted == (old,)
    assert [await status(backend, run_id) for run_id in (old, fresh, live)] == ["", "completed", "pending"]
    runs, total = await backend.list_runs("flow", tags=["eu"])
    assert ({run.run_id for run in runs}, total) == ({fresh, live}, 2)


async def test_who_follows_a_run_hears_of_its_deletion(backend: RedisBackend) -> None:
    """A blocked XREAD never wakes on a deleted stream."""
    run_id = await submit(backend, ONE)
    seen = []

    async def follow() -> None:
        async for event in backend.follow(run_id, block_ms=20):
            seen.append(event.type)
            if len(seen) == 2:  # a live run is not deleted by the engine: take away what it would
                keys = backend.keys_of(run_id)
                index, queue = keys.index("flow", "pending"), keys.scheduled("flow", 0)
                for key in (keys.run(run_id), keys.events(run_id), queue, keys.levels, index):
                    await backend.client.delete(key)

    with pytest.raises(RunNotFound):
        await follow()
    assert seen == ["RunSubmitted", "StepScheduled"]


async def test_who_follows_no_run(backend: RedisBackend) -> None:
    with pytest.raises(RunNotFound):
        await anext(backend.follow("no-such-run"))


async def test_an_ended_run_keeps_nothing_alive(backend: RedisBackend) -> None:
    claimed = await start(backend, PAIR)
    await backend.cancel_run(claimed.run_id)
    await travel(backend, 3600 * SECOND)
    assert (await reclaim(backend)).reclaimed == ()
    assert (await history(backend, claimed.run_id))[-1] == "WorkflowCancelled"
