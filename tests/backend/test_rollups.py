"""Counters of each minute: what the calls wrote, and nothing else; percentiles within the bound of the exact fold."""

from __future__ import annotations

from collections import Counter

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission
from redisflow.model.analytics.results import WorkflowDuration
from redisflow.model.errors import InvalidArgument
from redisflow.model.histogram import RELATIVE_ERROR, Histogram, bucket_of
from tests.flows import (
    CHAIN,
    DIAMOND,
    ONE,
    SECOND,
    claim,
    complete,
    completed,
    done,
    fail,
    plan,
    reclaim,
    retry,
    start,
    step,
    submit,
    travel,
    turn,
    typed,
)

RETRIED = plan(step("a", retry=retry(attempts=3), slug="retried"), slug="retried")
CRASHED = plan(step("a", retry=retry(crashes=0), slug="crashed"), slug="crashed")


async def written(backend: RedisBackend, *run_ids: str) -> Counter[str]:
    """Types of the events in the streams of runs."""
    found: Counter[str] = Counter()
    for run_id in run_ids:
        found.update(event.type for event in await typed(backend, run_id))
    return found


async def live_through(backend: RedisBackend) -> list[str]:
    """Runs that end in every way, with waits and durations from µs to minutes."""
    runs = []
    for number in range(12):
        run_id = await submit(backend, DIAMOND, delay_us=number * 100_000)
        runs.append(run_id)
        await travel(backend, number * 777_777)
        for name in "abcd":
            claimed = await claim(backend, run_id, name)
            done(await backend.complete_step(claimed, "1", duration_us=7 ** (number % 9) + number))
    retried = await start(backend, RETRIED)
    await fail(backend, retried, duration_us=1234)
    await travel(backend, 3 * SECOND)
    await complete(backend, retried.run_id, "a")
    failed = await start(backend)
    await fail(backend, failed, duration_us=99)
    crashed = await start(backend, CRASHED)
    await travel(backend, 5 * SECOND)
    await reclaim(backend)
    cancelled = await submit(backend, CHAIN)
    await travel(backend, SECOND)
    await backend.cancel_run(cancelled)
    return [*runs, retried.run_id, failed.run_id, crashed.run_id, cancelled]


async def test_events_are_counted_by_workflow_and_type(backend: RedisBackend) -> None:
    runs = await live_through(backend)
    found = await backend.get_rollups()
    assert sum(found.events.values(), Counter()) == await written(backend, *runs)
    assert found.events["retried"] == await written(backend, runs[-4])
    assert found.total("StepFailed") == 3
    assert found.total("StepFailed", "crashed") == 1
    assert found.total("StepFailed", "never") == 0
    assert sum(found.by_minute, Counter()) == await written(backend, *runs)


async def test_percentiles_are_within_the_bound_of_the_exact_fold(backend: RedisBackend) -> None:
    await live_through(backend)
    found = await backend.get_rollups()
    for histogram, truth in (
        (found.waits, await backend.get_scheduling_latency()),
        (found.steps, await backend.get_step_duration()),
        (found.runs, await backend.get_workflow_duration()),
    ):
        assert histogram.count == truth.count > 0
        assert_within(histogram, truth)


def assert_within(histogram: Histogram, truth: WorkflowDuration) -> None:
    for q, exact in ((0.5, truth.median_us), (0.95, truth.p95_us), (0.99, truth.p99_us), (0.0, truth.min_us)):
        assert abs(histogram.percentile(q) - exact) <= exact * RELATIVE_ERROR, (q, exact)


async def test_a_turn_counts_as_single_calls_do_and_its_repeat_not_at_all(backend: RedisBackend) -> None:
    await backend.submit(ONE, [Submission()] * 3)
    reply = await turn(backend, 1, want=3)
    outcomes = [part for entry in reply[5] for part in completed(entry[0].decode(), "a", reply[1])]
    outcomes[6], outcomes[13] = str(bucket_of(5)), str(bucket_of(5))
    await turn(backend, 2, outcomes=outcomes)
    before = await backend.get_rollups()
    assert before.steps.buckets == {bucket_of(5): 2}  # the third worker says nothing of it
    assert before.waits.count == 3
    assert before.total("WorkflowCompleted") == 3
    await turn(backend, 2, outcomes=outcomes)
    assert await backend.get_rollups() == before


async def test_minutes_are_apart_and_vanish(backend: RedisBackend) -> None:
    await submit(backend, ONE)
    await travel(backend, 60 * SECOND)
    await submit(backend, ONE)
    await submit(backend, ONE)
    found = await backend.get_rollups(3)
    assert [types["RunSubmitted"] for types in found.by_minute] == [0, 1, 2]
    assert (await backend.get_rollups(1)).total("RunSubmitted") == 2
    names = [key async for key in backend.client.scan_iter(match="*:stats:*")]
    keys = [name for name in names if name.decode().startswith(backend.partitions[0].prefix)]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await backend.client.ttl(key) <= 21600


async def test_saved_events_are_not_counted(backend: RedisBackend) -> None:
    await backend.save_workflow_start(
        "flow", "r1", version_id="v1", workflow_attempt_number=1, has_input_schema=False, has_input=False
    )
    assert (await backend.get_rollups()).events == {}


async def test_copies_of_a_rerun_are_not_counted_again(backend: RedisBackend) -> None:
    await backend.register_plan(CHAIN)
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a", "b")
    again = await backend.rerun_from(run_id, "b")
    found = await backend.get_rollups()
    assert found.total("StepCompleted") == 2
    assert found.total("RunSubmitted") == 2
    assert (await written(backend, again))["StepCompleted"] == 1


async def test_a_damaged_counter_fails_no_transition(backend: RedisBackend) -> None:
    now = await backend.now()
    for minute in (now // 60_000_000, now // 60_000_000 + 1):
        await backend.client.set(backend.partitions[0].stats(minute), "not a hash", ex=60)
    run_id = await submit(backend, ONE)
    await complete(backend, run_id, "a")
    assert (await written(backend, run_id))["WorkflowCompleted"] == 1


@pytest.mark.parametrize("minutes", [0, 361, -1, 1.5, True, "5"])
async def test_minutes_out_of_range_are_refused(backend: RedisBackend, minutes: int) -> None:
    with pytest.raises(InvalidArgument, match="minutes"):
        await backend.get_rollups(minutes)
