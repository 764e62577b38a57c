"""submit: a run and its root steps, or the run that an idempotency key stands for."""

from __future__ import annotations

import asyncio

import pytest

from redisflow.backend import keys as k
from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission
from redisflow.model.errors import InvalidArgument, PayloadTooLarge, RunExists
from tests.flows import (
    CHAIN,
    ONE,
    PAIR,
    SECOND,
    claim,
    field,
    header,
    history,
    plan,
    scores,
    snapshot,
    status,
    statuses,
    step,
    submit,
    travel,
    turn,
    typed,
)


async def test_a_run_with_its_roots_scheduled(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR, input='{"cents":499}')
    assert await history(backend, run_id) == ["RunSubmitted", "StepScheduled a", "StepScheduled b"]
    assert await status(backend, run_id) == "pending"
    assert await statuses(backend, run_id) == {"a": "scheduled", "b": "scheduled"}
    submitted, *scheduled = await typed(backend, run_id)
    assert submitted.version_id == PAIR.version
    assert submitted.input == '{"cents":499}'
    assert not submitted.has_input_schema
    assert [(s.reason, s.attempt_number, s.available_at_us) for s in scheduled] == [
        ("initial", 1, submitted.timestamp_us)
    ] * 2
    keys = backend.keys_of(run_id)
    assert await scores(backend, keys.scheduled("flow", 0)) == dict.fromkeys(
        (f"{run_id}|a", f"{run_id}|b"), submitted.timestamp_us
    )
    assert await scores(backend, keys.levels) == {"flow:0": submitted.timestamp_us}
    assert await scores(backend, keys.index("flow", "pending")) == {run_id: submitted.timestamp_us}
    assert await scores(backend, keys.running) == {}
    assert await scores(backend, keys.deadlines) == {}
    assert await scores(backend, keys.ended) == {}


async def test_steps_with_dependencies_stay_pending(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    assert await statuses(backend, run_id) == {"a": "scheduled"}
    assert await backend.claim_step(run_id, "b", "w1") is None
    head = await header(backend, run_id)
    assert (head.open, head.active, head.done) == (2, 1, 0)


async def test_event_ids_rise_and_are_their_times(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    events = await typed(backend, run_id)
    ids = [int(event.event_id) for event in events]
    assert ids == sorted(set(ids))
    assert ids == [event.timestamp_us for event in events]


async def test_a_delay_counts_from_the_submission(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE, delay_us=60 * SECOND)
    submitted, scheduled = await typed(backend, run_id)
    due = submitted.timestamp_us + 60 * SECOND
    assert submitted.available_at_us == scheduled.available_at_us == due
    assert (await backend.get_run(run_id)).available_at == due  # type: ignore[union-attr]
    assert await scores(backend, backend.keys_of(run_id).levels) == {"flow:0": due}
    assert await backend.claim_step(run_id, "a", "w1") is None
    await travel(backend, 61 * SECOND)
    assert await backend.claim_step(run_id, "a", "w1") is not None


async def test_an_absolute_time(backend: RedisBackend) -> None:
    later = await submit(backend, ONE, available_at_us=2_000_000_000_000_000)
    past = await submit(backend, ONE, available_at_us=1_000_000_000_000_000)
    for run_id, due in ((later, 2_000_000_000_000_000), (past, 1_000_000_000_000_000)):
        submitted, scheduled = await typed(backend, run_id)
        assert submitted.available_at_us == scheduled.available_at_us == due
        assert (await scores(backend, backend.keys_of(run_id).scheduled("flow", 0)))[f"{run_id}|a"] == due
    assert await backend.claim_step(later, "a", "w1") is None
    assert await backend.claim_step(past, "a", "w1") is not None


async def test_priorities_are_levels_and_the_highest_goes_first(backend: RedisBackend) -> None:
    runs = {level: await submit(backend, ONE, priority=level) for level in (0, -100, 7, 100, -3)}
    keys = backend.partitions[0]
    for level, run_id in runs.items():
        assert list(await scores(backend, keys.scheduled("flow", level))) == [f"{run_id}|a"]
        assert (await field(backend, run_id, "a")).level == level
        assert (await backend.get_run(run_id)).priority == level  # type: ignore[union-attr]
    assert set(await scores(backend, keys.levels)) == {f"flow:{level}" for level in runs}
    claimed = (await turn(backend, 1, want=10))[5]
    assert [entry[0].decode() for entry in claimed] == [runs[level] for level in (100, 7, 0, -3, -100)]
    assert await scores(backend, keys.levels) == {}


async def test_in_a_level_the_first_that_is_due_goes_first(backend: RedisBackend) -> None:
    runs = [await submit(backend, ONE, available_at_us=1_000_000_000_000_000 + offset) for offset in (30, 10, 20)]
    claimed = (await turn(backend, 1, want=10))[5]
    assert [entry[0].decode() for entry in claimed] == [runs[1], runs[2], runs[0]]


async def test_tags_and_metadata(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE, tags=["eu", "vip", "eu"], metadata={"deep": [{"x": None, "ü": 1.5}]})
    other = await submit(backend, ONE, tags=["eu"])
    state = await backend.get_run(run_id)
    assert state is not None
    assert state.tags == ("eu", "vip")
    assert state.metadata == {"deep": [{"x": None, "ü": 1.5}]}
    keys = backend.partitions[0]
    assert set(await scores(backend, keys.tag("flow", "eu"))) == {run_id, other}
    assert await scores(backend, keys.tag("flow", "vip")) == {run_id: state.created_at}
    for tags, expected in ((["eu"], [other, run_id]), (["eu", "vip"], [run_id]), (["none"], [])):
        found, total = await backend.list_runs("flow", tags=tags)
        assert ([run.run_id for run in found], total) == (expected, len(expected))


async def test_a_timeout_is_a_deadline_from_available_at(backend: RedisBackend) -> None:
    own = await submit(backend, ONE, timeout_us=5 * SECOND, delay_us=SECOND)
    plans = await submit(backend, plan(step("a"), timeout_us=9 * SECOND))
    for run_id, timeout in ((own, 5 * SECOND), (plans, 9 * SECOND)):
        state = await backend.get_run(run_id)
        assert state is not None
        assert state.timeout == timeout
        found = await scores(backend, backend.partitions[0].deadlines)
        assert found[f"run:{run_id}"] == state.available_at + timeout


async def test_an_idempotency_key_gives_the_first_run(backend: RedisBackend) -> None:
    first = await submit(backend, ONE, idempotency_key="order-1", input="1")
    (again,) = await backend.submit(ONE, [Submission(idempotency_key="order-1", input="2")])
    assert (again.run_id, again.is_new) == (first, False)
    assert len(await history(backend, first)) == 2
    state = await backend.get_run(first)
    assert state is not None
    assert (state.idempotency_key, state.input) == ("order-1", "1")
    record = backend.keys_of(first).idempotency(k.key_hash("order-1"))
    assert await backend.client.get(record) == first.encode()
    assert await backend.client.ttl(record) == -1


async def test_one_key_twice_in_one_call(backend: RedisBackend) -> None:
    results = await backend.submit(ONE, [Submission(idempotency_key="k", input=str(i)) for i in range(3)])
    assert len({result.run_id for result in results}) == 1
    assert [result.is_new for result in results] == [True, False, False]


async def test_fifty_concurrent_submits_of_one_key_make_one_run(backend: RedisBackend) -> None:
    answers = await asyncio.gather(
        *(backend.submit(ONE, [Submission(idempotency_key="k", input=str(i))]) for i in range(50))
    )
    results = [answer[0] for answer in answers]
    assert len({result.run_id for result in results}) == 1
    assert sum(result.is_new for result in results) == 1
    assert (await backend.list_runs("flow"))[1] == 1


async def test_a_key_record_without_its_run_makes_the_run_under_that_id(backend: RedisBackend) -> None:
    """A crash between the two may leave the record alone; a repeat creates what is missing."""
    hashed = k.key_hash("k")
    reserved = k.new_run_id(k.route_of_key(hashed))
    await backend.client.set(backend.keys_of(reserved).idempotency(hashed), reserved)
    (result,) = await backend.submit(ONE, [Submission(idempotency_key="k")])
    assert (result.run_id, result.is_new) == (reserved, True)
    assert await status(backend, reserved) == "pending"


async def test_an_id_in_use_is_refused_and_changes_nothing(backend: RedisBackend) -> None:
    await submit(backend, ONE, run_id="order-1", input="1")
    before = await snapshot(backend)
    with pytest.raises(RunExists, match="order-1"):
        await backend.submit(ONE, [Submission(run_id="order-1", input="2")])
    assert await snapshot(backend) == before


@pytest.mark.parametrize(
    "options",
    [
        {"priority": 101}, {"priority": True}, {"delay_us": -1}, {"available_at_us": 2**53},
        {"timeout_us": 0},
        {"idempotency_key": ""}, {"tags": "eu"}, {"tags": ["a b"]}, {"run_id": "no spaces"},
    ],
    ids=str,
)  # fmt: skip
async def test_what_could_not_be_stored_is_refused(backend: RedisBackend, options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument):
        await backend.submit(ONE, [Submission(**options)])  # type: ignore[arg-type]
    assert (await backend.list_runs("flow"))[1] == 0


async def test_an_input_over_the_cap_is_refused(backend: RedisBackend) -> None:
    text = '"' + "x" * backend.settings.max_payload_bytes + '"'
    with pytest.raises(PayloadTooLarge):
        await backend.submit(ONE, [Submission(input="1"), Submission(input=text)])
    assert (await backend.list_runs("flow"))[1] == 0


async def test_a_thousand_runs_in_one_submit_keep_their_order(backend: RedisBackend) -> None:
    results = await backend.submit(ONE, [Submission(input=str(i)) for i in range(1000)])
    assert len({result.run_id for result in results}) == 1000
    keys = backend.partitions[0]
    assert len(await scores(backend, keys.scheduled("flow", 0))) == 1000
    newest, total = await backend.list_runs("flow", limit=3)
    assert total == 1000
    assert len(newest) == 3
    for first in range(0, 1000, 250):  # one script each; in it, runs stand in the order in which they were given
        states = await backend.get_runs([result.run_id for result in results[first : first + 250]])
        created = [state.created_at for state in states if state]
        assert created == sorted(set(created))
    claimed = (await turn(backend, 1, want=64))[5]
    first_input = int(claimed[0][4][1:])
    assert [entry[4] for entry in claimed] == [f"={first_input + i}".encode() for i in range(64)]


async def test_the_plan_is_registered_where_it_is_missing(backend: RedisBackend) -> None:
    """Where the number that a client keeps is not known, NO_PLAN is answered and mended."""
    await submit(backend, ONE)
    backend._plan_numbers[(0, PAIR.version)] = 99
    run_id = await submit(backend, PAIR)
    claimed = await claim(backend, run_id, "b")
    assert claimed.plan_number == 2
