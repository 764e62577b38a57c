"""The fence: an outcome counts once, while its lease is the step's current one; all else changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim, Settled
from tests.flows import (
    CHAIN,
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
    release_unknown,
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

Outcome = Callable[[RedisBackend, Claim], Awaitable[Settled]]
OUTCOMES: dict[str, Outcome] = {
    "completed": lambda backend, claimed: backend.complete_step(claimed, "1"),
    "failed": lambda backend, claimed: fail(backend, claimed),
    "skipped": lambda backend, claimed: backend.skip_step(claimed, "no"),
    "released": lambda backend, claimed: backend.release_step(claimed),
}
LASTING = plan(step("a", retry=retry(attempts=9)), step("b"))
each_outcome = pytest.mark.parametrize("kind", OUTCOMES)


async def refused(backend: RedisBackend, kind: str, claimed: Claim) -> Settled:
    """The answer to an outcome that must not change a byte."""
    before = await snapshot(backend)
    answer = await OUTCOMES[kind](backend, claimed)
    assert await snapshot(backend) == before
    return answer


@each_outcome
async def test_a_pending_step_cannot_end(backend: RedisBackend, kind: str) -> None:
    claimed = await start(backend, CHAIN)
    answer = await refused(backend, kind, replace(claimed, step_id="b"))
    assert answer.reply is Reply.STALE
    assert not answer.recorded


@each_outcome
async def test_a_scheduled_step_cannot_end(backend: RedisBackend, kind: str) -> None:
    run_id = await submit(backend, ONE)
    answer = await refused(backend, kind, Claim(run_id, "a", 1, 0, None, {}))
    assert answer.reply is Reply.STALE


@each_outcome
async def test_a_foreign_lease_is_stale(backend: RedisBackend, kind: str) -> None:
    claimed = await start(backend, LASTING)
    for lease in (claimed.lease - 1, claimed.lease + 1, 0):
        assert (await refused(backend, kind, replace(claimed, lease=lease))).reply is Reply.STALE


@each_outcome
async def test_a_step_that_no_plan_knows(backend: RedisBackend, kind: str) -> None:
    claimed = await start(backend, ONE)
    assert (await refused(backend, kind, replace(claimed, step_id="no-such-step"))).reply is Reply.STALE


@each_outcome
async def test_a_run_that_is_gone(backend: RedisBackend, kind: str) -> None:
    claimed = await start(backend, ONE)
    await backend.cancel_run(claimed.run_id)
    await backend.delete_run(claimed.run_id)
    assert (await refused(backend, kind, claimed)).reply is Reply.GONE


@each_outcome
async def test_an_ended_run_takes_no_outcome(backend: RedisBackend, kind: str) -> None:
    claimed = await start(backend, ONE)
    await backend.cancel_run(claimed.run_id)
    assert (await refused(backend, kind, claimed)).reply is Reply.RUN_ENDED


@each_outcome
@pytest.mark.parametrize("first", OUTCOMES)
async def test_a_lease_ends_once(backend: RedisBackend, first: str, kind: str) -> None:
    """The same again is a success; another kind is told how the lease ended."""
    claimed = await start(backend, LASTING)
    done(await OUTCOMES[first](backend, claimed))
    answer = await refused(backend, kind, claimed)
    if kind == first:
        assert (answer.reply, answer.recorded) == (Reply.ALREADY, True)
    else:
        assert (answer.reply, answer.detail, answer.recorded) == (Reply.CONFLICT, first, False)


async def test_a_repeated_end_is_already_when_it_ended_the_run(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    done(await backend.complete_step(claimed, "1"))
    assert (await refused(backend, "completed", claimed)).reply is Reply.ALREADY
    assert (await refused(backend, "failed", claimed)).detail == "completed"


async def test_an_old_lease_is_stale_once_the_next_one_ended(backend: RedisBackend) -> None:
    first = await start(backend, LASTING)
    await fail(backend, first)
    await fail(backend, await claim(backend, first.run_id, "a"))
    assert (await refused(backend, "completed", first)).reply is Reply.STALE


@each_outcome
async def test_a_zombie_is_refused(backend: RedisBackend, kind: str) -> None:
    """A worker taken for dead comes back: first to a free step, then to one that another worker runs."""
    zombie = await start(backend, LASTING)
    await reclaim(backend)
    answer = await refused(backend, kind, zombie)
    assert (answer.reply, answer.detail) == (Reply.CONFLICT, "reclaimed")
    successor = await claim(backend, zombie.run_id, "a", worker="w2")
    answer = await refused(backend, kind, zombie)
    assert not answer.recorded
    done(await backend.complete_step(successor, "2"))
    assert (await refused(backend, kind, zombie)).reply is Reply.STALE


async def test_a_release_keeps_the_attempt(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    done(await backend.release_step(claimed))
    assert (await history(backend, claimed.run_id))[4:] == ["StepScheduled a"]
    scheduled = (await typed(backend, claimed.run_id, "StepScheduled"))[-1]
    assert (scheduled.reason, scheduled.attempt_number, scheduled.retry_delay_ms) == ("retry", 1, 0)
    found = await field(backend, claimed.run_id, "a")
    assert (found.status, found.attempt, found.failures, found.crashes, found.kind) == ("s", 1, 0, 0, "l")
    assert await scores(backend, backend.partitions[0].running) == {}
    again = await claim(backend, claimed.run_id, "a", worker="w2")
    assert again.attempt_number == 1
    assert again.lease > claimed.lease
    done(await backend.complete_step(again, "1"))
    assert await status(backend, claimed.run_id) == "completed"


async def test_a_step_without_code_is_handed_back_with_growing_pauses(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    waits = []
    for _ in range(8):
        done(await release_unknown(backend, await claim(backend, run_id, "a"), 3600 * SECOND))
        scheduled = (await typed(backend, run_id, "StepScheduled"))[-1]
        assert (scheduled.reason, scheduled.attempt_number) == ("retry", 1)
        waits.append(scheduled.available_at_us - scheduled.timestamp_us)
        await travel(backend, waits[-1])
    assert waits[0] == SECOND
    assert waits == sorted(waits)
    assert waits[-1] == 30 * SECOND
    await complete(backend, run_id, "a")
    assert await status(backend, run_id) == "completed"


async def test_a_step_without_code_fails_as_step_removed(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    done(await release_unknown(backend, await claim(backend, run_id, "a"), 5 * SECOND))
    await travel(backend, 6 * SECOND)
    done(await release_unknown(backend, await claim(backend, run_id, "a"), 5 * SECOND))
    assert (await history(backend, run_id))[-2:] == ["StepFailed a", "WorkflowFailed"]
    failed, ended = (await typed(backend, run_id))[-2:]
    assert (failed.terminal, failed.failure_reason, failed.attempt_number) == (True, "step-removed", 1)
    assert (failed.error.name, ended.failed_step, ended.failure_reason) == ("StepRemoved", "a", "step-failed")
    assert len(set(failed.error_fingerprints.to_wire().values())) >= 2


async def test_the_patience_starts_anew_when_the_step_has_run(backend: RedisBackend) -> None:
    """An attempt between two hand-backs shows that some worker has the code."""
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=2))))
    done(await release_unknown(backend, await claim(backend, run_id, "a"), 5 * SECOND))
    await travel(backend, 6 * SECOND)
    await fail(backend, await claim(backend, run_id, "a"))
    done(await release_unknown(backend, await claim(backend, run_id, "a"), 5 * SECOND))
    assert await status(backend, run_id) == "running"
    assert (await history(backend, run_id))[-1] == "StepScheduled a"


async def test_step_removed_ends_the_lease(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    await release_unknown(backend, await claim(backend, run_id, "a"), 0)
    await travel(backend, 2 * SECOND)
    last = await claim(backend, run_id, "a")
    done(await release_unknown(backend, last, 0))
    assert await status(backend, run_id) == "failed"
    assert not (await refused(backend, "completed", last)).recorded
