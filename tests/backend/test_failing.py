"""fail: StepFailed, StepRetrying and StepScheduled while attempts are left, else the end of the step."""

from __future__ import annotations

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.model.retry import RetryTier
from tests.flows import (
    ERROR,
    ONE,
    PRINTS,
    SECOND,
    claim,
    complete,
    done,
    fail,
    field,
    history,
    plan,
    retry,
    scores,
    start,
    status,
    statuses,
    step,
    submit,
    travel,
    typed,
)

TWICE = plan(step("a", retry=retry(attempts=2, delay_us=10 * SECOND)))


async def test_a_failure_without_attempts_left_ends_the_run(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    done(await fail(backend, claimed, duration_us=77))
    assert (await history(backend, claimed.run_id))[4:] == ["StepFailed a", "WorkflowFailed"]
    failed, ended = (await typed(backend, claimed.run_id))[4:]
    assert (failed.terminal, failed.failure_reason, failed.duration_us) == (True, "execution-error", 77)
    assert failed.error.to_wire() == ERROR
    assert failed.error_fingerprints.stack_portable_hash == PRINTS[4]
    assert failed.next_retry_at_us is None
    assert (ended.failure_reason, ended.failed_step, ended.completed_steps) == ("step-failed", "a", 0)
    assert ended.error.to_wire() == ERROR
    keys = backend.partitions[0]
    assert list(await scores(backend, keys.ended)) == [claimed.run_id]
    assert list(await scores(backend, keys.index("flow", "failed"))) == [claimed.run_id]
    assert await scores(backend, keys.running) == {}
    found = await field(backend, claimed.run_id, "a")
    assert (found.status, found.failures, found.kind, found.ended) == ("f", 1, "f", claimed.lease)


async def test_a_failure_with_attempts_left_is_retried(backend: RedisBackend) -> None:
    claimed = await start(backend, TWICE)
    done(await fail(backend, claimed))
    run_id = claimed.run_id
    assert (await history(backend, run_id))[4:] == ["StepFailed a", "StepRetrying a", "StepScheduled a"]
    failed, retrying, scheduled = (await typed(backend, run_id))[4:]
    assert (failed.terminal, failed.attempt_number, failed.failure_reason) == (False, 1, "execution-error")
    assert (retrying.attempt_number, retrying.next_attempt, retrying.max_retries) == (1, 2, 1)
    assert retrying.error.to_wire() == ERROR
    assert (scheduled.reason, scheduled.attempt_number, scheduled.retry_delay_ms) == ("retry", 2, 10_000)
    assert scheduled.available_at_us == scheduled.timestamp_us + 10 * SECOND == failed.next_retry_at_us
    assert (await scores(backend, backend.partitions[0].scheduled("flow", 0)))[
        f"{run_id}|a"
    ] == scheduled.available_at_us
    assert await statuses(backend, run_id) == {"a": "scheduled"}
    assert await status(backend, run_id) == "running"
    assert await backend.claim_step(run_id, "a", "w1") is None
    await travel(backend, 10 * SECOND)
    assert (await claim(backend, run_id, "a")).attempt_number == 2


async def test_the_last_of_several_attempts_is_exhausted(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=3))))
    for _ in range(3):
        await fail(backend, await claim(backend, run_id, "a"))
    reasons = [(e.terminal, e.failure_reason) for e in await typed(backend, run_id, "StepFailed")]
    assert reasons == [(False, "execution-error"), (False, "execution-error"), (True, "exhausted-retries")]
    assert (await typed(backend, run_id, "WorkflowFailed"))[0].failure_reason == "step-failed"
    assert (await history(backend, run_id)).count("StepRetrying a") == 2


async def test_a_retry_that_succeeds(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=2)), step("b", "a")))
    await fail(backend, await claim(backend, run_id, "a"))
    await complete(backend, run_id, "a", "b")
    assert await status(backend, run_id) == "completed"
    assert (await history(backend, run_id)).count("WorkflowStarted") == 1


async def test_tiers_are_used_up_one_after_the_other(backend: RedisBackend) -> None:
    quick = RetryTier(attempts=2, delay_us=1000, factor=3, jitter=0)
    slow = RetryTier(attempts=2, delay_us=60 * SECOND, factor=2, max_delay_us=90 * SECOND, jitter=0)
    run_id = await submit(backend, plan(step("a", retry=retry(quick, slow))))
    for _ in range(4):
        await fail(backend, await claim(backend, run_id, "a"))
        await travel(backend, 90 * SECOND)
    failed = await typed(backend, run_id, "StepFailed")
    assert [(e.policy_index, e.attempt_in_policy) for e in failed] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert [e.failure_reason for e in failed] == ["execution-error"] * 3 + ["exhausted-retries"]
    retrying = await typed(backend, run_id, "StepRetrying")
    assert [(e.policy_index, e.total_policies, e.max_retries) for e in retrying] == [
        (0, 2, 3),
        (1, 2, 3),
        (1, 2, 3),
    ]
    scheduled = (await typed(backend, run_id, "StepScheduled"))[1:]
    assert [(e.policy_index, e.attempt_in_policy) for e in scheduled] == [(0, 2), (1, 1), (1, 2)]
    waits = [e.available_at_us - e.timestamp_us for e in scheduled]
    assert waits == [1000, 60 * SECOND, 60 * SECOND]


async def test_backoff_grows_up_to_its_cap(backend: RedisBackend) -> None:
    tier = RetryTier(attempts=5, delay_us=SECOND, factor=3, max_delay_us=8 * SECOND, jitter=0)
    run_id = await submit(backend, plan(step("a", retry=retry(tier))))
    for _ in range(4):
        await fail(backend, await claim(backend, run_id, "a"))
        await travel(backend, 8 * SECOND)
    scheduled = (await typed(backend, run_id, "StepScheduled"))[1:]
    assert [e.available_at_us - e.timestamp_us for e in scheduled] == [
        SECOND,
        3 * SECOND,
        8 * SECOND,
        8 * SECOND,
    ]


async def test_jitter_stays_in_its_share(backend: RedisBackend) -> None:
    tier = RetryTier(attempts=30, delay_us=1000, factor=1, jitter=0.5)
    run_id = await submit(backend, plan(step("a", retry=retry(tier))))
    for _ in range(20):
        await fail(backend, await claim(backend, run_id, "a"))
        await travel(backend, 2000)
    waits = {e.available_at_us - e.timestamp_us for e in (await typed(backend, run_id, "StepScheduled"))[1:]}
    assert len(waits) > 1
    assert all(500 <= wait <= 1500 for wait in waits)


async def test_a_fatal_failure_spends_no_attempts(backend: RedisBackend) -> None:
    claimed = await start(backend, TWICE)
    await fail(backend, claimed, fatal=True)
    assert (await history(backend, claimed.run_id))[4:] == ["StepFailed a", "WorkflowFailed"]
    failed = (await typed(backend, claimed.run_id, "StepFailed"))[0]
    assert (failed.terminal, failed.failure_reason) == (True, "execution-error")


async def test_retry_after_takes_the_place_of_the_policys_delay(backend: RedisBackend) -> None:
    claimed = await start(backend, TWICE)
    await fail(backend, claimed, retry_after_us=3 * SECOND)
    scheduled = (await typed(backend, claimed.run_id, "StepScheduled"))[-1]
    assert scheduled.available_at_us - scheduled.timestamp_us == 3 * SECOND
    assert scheduled.retry_delay_ms == 3000


async def test_retry_after_gives_no_attempt_more(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    await fail(backend, claimed, retry_after_us=0)
    assert await status(backend, claimed.run_id) == "failed"


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_last_timeout_stays_a_timeout(backend: RedisBackend, attempts: int) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(attempts=attempts))))
    for _ in range(attempts):
        await fail(backend, await claim(backend, run_id, "a"), reason="timeout")
    failed = await typed(backend, run_id, "StepFailed")
    assert [e.failure_reason for e in failed] == ["timeout"] * attempts
    assert (await typed(backend, run_id, "WorkflowFailed"))[0].failure_reason == "step-failed"


async def test_on_error_stop_ends_the_run_at_once(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), step("c"), step("d", "a")))
    running = await claim(backend, run_id, "b")
    await fail(backend, await claim(backend, run_id, "a"))
    assert (await history(backend, run_id))[-2:] == ["StepFailed a", "WorkflowFailed"]
    assert await statuses(backend, run_id) == {"a": "failed", "b": "running", "c": "scheduled"}
    keys = backend.partitions[0]
    assert await scores(backend, keys.running) == {}
    assert await scores(backend, keys.scheduled("flow", 0)) == {}
    assert await scores(backend, keys.levels) == {}
    assert (await backend.complete_step(running, "1")).reply.name == "RUN_ENDED"


FINISH = plan(
    step("a"),
    step("b"),
    step("after_a", after=["a"]),
    step("maybe_a", optional=["a"]),
    step("needs_b", "b"),
    on_error="finish",
)


async def test_on_error_finish_lets_the_others_go_on(backend: RedisBackend) -> None:
    run_id = await submit(backend, FINISH)
    await fail(backend, await claim(backend, run_id, "a"))
    assert (await history(backend, run_id))[-1] == "StepFailed a"
    assert await status(backend, run_id) == "running"
    await complete(backend, run_id, "b", "needs_b")
    assert (await history(backend, run_id))[-2:] == ["StepCompleted needs_b", "WorkflowFailed"]
    ended = (await typed(backend, run_id, "WorkflowFailed"))[0]
    assert (ended.failed_step, ended.completed_steps, ended.failure_reason) == ("a", 2, "step-failed")
    assert ended.error.to_wire() == ERROR
    # dependents of the failed step stay pending, over weaker edges too
    assert await statuses(backend, run_id) == {"a": "failed", "b": "completed", "needs_b": "completed"}


async def test_on_error_finish_names_the_step_that_failed_first(backend: RedisBackend) -> None:
    run_id = await submit(backend, FINISH)
    first, second = await claim(backend, run_id, "b"), await claim(backend, run_id, "a")
    await backend.fail_step(first, {"message": "first"}, PRINTS)
    await backend.fail_step(second, {"message": "second"}, PRINTS)
    ended = (await typed(backend, run_id, "WorkflowFailed"))[0]
    assert (ended.failed_step, ended.error.message) == ("b", "first")


async def test_on_error_finish_waits_for_a_retry(backend: RedisBackend) -> None:
    run_id = await submit(
        backend, plan(step("a"), step("b", retry=retry(attempts=2, delay_us=SECOND)), on_error="finish")
    )
    await fail(backend, await claim(backend, run_id, "b"))
    await fail(backend, await claim(backend, run_id, "a"))
    assert await status(backend, run_id) == "running"
    await travel(backend, SECOND)
    await complete(backend, run_id, "b")
    assert (await history(backend, run_id))[-1] == "WorkflowFailed"


async def test_on_error_finish_ends_after_a_skip_too(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), on_error="finish"))
    await fail(backend, await claim(backend, run_id, "a"))
    await backend.skip_step(await claim(backend, run_id, "b"), "no")
    assert (await history(backend, run_id))[-2:] == ["StepSkipped b", "WorkflowFailed"]
