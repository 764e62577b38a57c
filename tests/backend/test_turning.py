"""turn: outcomes and a claim in one call, repeatable by its number; what it leaves for others, it says."""

from __future__ import annotations

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.types import Submission
from redisflow.codec import pack
from tests.flows import (
    CHAIN,
    ONE,
    SECOND,
    claim,
    completed,
    history,
    plan,
    reclaim,
    scores,
    snapshot,
    statuses,
    step,
    submit,
    travel,
    turn,
    typed,
)

OK, NOW, DUE, ASLEEP, ANSWERS, CLAIMS = range(6)


async def test_a_turn_claims_for_its_free_slots(backend: RedisBackend) -> None:
    await backend.submit(ONE, [Submission(input=str(i)) for i in range(5)])
    reply = await turn(backend, 1, want=3)
    assert reply[OK] == Reply.OK
    assert [entry[4] for entry in reply[CLAIMS]] == [b"=0", b"=1", b"=2"]
    assert reply[DUE] == reply[NOW]  # more is due
    run_id = reply[CLAIMS][2][0].decode()
    started = (await typed(backend, run_id, "StepStarted"))[0]
    assert (started.worker_id, started.slot_index, started.worker_concurrency) == ("w1.x", 2, 10)
    assert len((await turn(backend, 2, want=3))[CLAIMS]) == 2


async def test_outcomes_and_what_they_scheduled_in_one_turn(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    first = await turn(backend, 1, want=1)
    reply = await turn(backend, 2, want=1, outcomes=completed(run_id, "a", first[NOW], output='"out"'))
    assert reply[ANSWERS] == [Reply.OK]
    assert reply[CLAIMS] == [[run_id.encode(), b"b", 1, 1, b"", b"a", b'="out"']]
    last = await turn(backend, 3, outcomes=completed(run_id, "b", reply[NOW]))
    assert (last[ANSWERS], last[CLAIMS]) == ([Reply.OK], [])
    assert (await history(backend, run_id))[-1] == "WorkflowCompleted"


async def test_the_same_number_gives_the_same_answer(backend: RedisBackend) -> None:
    await backend.submit(CHAIN, [Submission(input="7")] * 4)
    first = await turn(backend, 1, want=2)
    outcomes = completed(first[CLAIMS][0][0].decode(), "a", first[NOW])
    reply = await turn(backend, 2, want=2, outcomes=outcomes)
    before = await snapshot(backend)
    repeat = await turn(backend, 2, want=2, outcomes=outcomes)
    assert (repeat[OK], repeat[ANSWERS], repeat[CLAIMS]) == (Reply.OK, reply[ANSWERS], reply[CLAIMS])
    assert repeat[NOW] == reply[NOW]  # the lease of the claims
    assert await snapshot(backend) == before


async def test_a_repeat_leaves_out_claims_that_are_over(backend: RedisBackend) -> None:
    await backend.submit(ONE, [Submission()] * 3)
    reply = await turn(backend, 1, want=3)
    kept, taken, ended = [entry[0].decode() for entry in reply[CLAIMS]]
    await turn(backend, 1, outcomes=completed(taken, "a", reply[NOW]), worker="w2.x")
    await backend.cancel_run(ended)
    repeat = await turn(backend, 1, want=3)
    assert [entry[0].decode() for entry in repeat[CLAIMS]] == [kept]


async def test_an_older_number_is_refused(backend: RedisBackend) -> None:
    await submit(backend, ONE)
    await turn(backend, 5)
    before = await snapshot(backend)
    assert await turn(backend, 4, want=1) == [Reply.OLD_TURN, 5]
    assert await snapshot(backend) == before


async def test_an_idle_turn_counts_too(backend: RedisBackend) -> None:
    """A late copy of the turn before it must not run once more."""
    await turn(backend, 1, want=1)
    await turn(backend, 2, want=1)
    run_id = await submit(backend, ONE)
    assert (await turn(backend, 1, want=1))[OK] == Reply.OLD_TURN
    assert await statuses(backend, run_id) == {"a": "scheduled"}


async def test_lanes_and_workers_have_numbers_of_their_own(backend: RedisBackend) -> None:
    for options in ({"lane": 0}, {"lane": 1}, {"worker": "w2.x"}):
        assert (await turn(backend, 1, **options))[OK] == Reply.OK  # type: ignore[arg-type]


async def test_a_worker_gets_the_steps_of_its_queues(backend: RedisBackend) -> None:
    await submit(backend, plan(step("a"), step("b", queue="gpu"), step("c", queue="gpu-2")))
    assert [entry[1] for entry in (await turn(backend, 1, want=9, queues="gpu"))[CLAIMS]] == [b"b"]
    assert [entry[1] for entry in (await turn(backend, 2, want=9, queues="flow,gpu-2"))[CLAIMS]] == [
        b"a",
        b"c",
    ]


async def test_the_next_due_time_is_told(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE, delay_us=30 * SECOND)
    await submit(backend, plan(step("a", queue="gpu")), delay_us=10 * SECOND)
    state = await backend.get_run(run_id)
    assert state is not None
    reply = await turn(backend, 1, want=1, queues="flow")
    assert (reply[CLAIMS], reply[DUE]) == ([], state.available_at)
    assert (await turn(backend, 1, want=1, queues="none", worker="w2.x"))[DUE] == 0
    await travel(backend, 31 * SECOND)
    assert len((await turn(backend, 2, want=1, queues="flow"))[CLAIMS]) == 1


async def test_every_outcome_has_its_answer(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    lease = (await turn(backend, 1, want=1))[NOW]
    outcomes = [
        *completed(run_id, "a", lease), *completed(run_id, "a", lease), *completed("no-such-run", "a", lease),
        run_id, "a", lease, "k", pack({"a": 1, "d": 0, "k": "primary", "r": "no"}), "", "",
        *completed(run_id, "a", lease + 1),
    ]  # fmt: skip
    answers = (await turn(backend, 2, outcomes=outcomes))[ANSWERS]
    assert answers == [Reply.OK, Reply.ALREADY, Reply.GONE, [Reply.CONFLICT, b"c"], Reply.RUN_ENDED]


async def test_an_outcome_that_raises_takes_its_run_with_it_and_no_other(backend: RedisBackend) -> None:
    workflow = plan(step("a"), step("b"), step("c", "a"))
    bad, good = await submit(backend, workflow), await submit(backend, workflow)
    reply = await turn(backend, 1, want=9)
    lease = reply[NOW]
    before = {key: value for key, value in (await snapshot(backend)).items() if bad.encode() in key}
    outcomes = [
        *completed(bad, "a", lease), *completed(good, "a", lease), bad, "b", lease, "z", b"", "", "",
        *completed(good, "b", lease),
    ]  # fmt: skip
    answers = (await turn(backend, 2, want=9, outcomes=outcomes))[ANSWERS]
    assert [answer if isinstance(answer, int) else answer[0] for answer in answers] == [
        Reply.REJECTED, Reply.OK, Reply.REJECTED, Reply.OK,
    ]  # fmt: skip
    assert {key: value for key, value in (await snapshot(backend)).items() if bad.encode() in key} == before
    assert await statuses(backend, good) == {"a": "completed", "b": "completed", "c": "running"}
    # the run is not stranded: its outcomes can be sent again
    answers = (await turn(backend, 3, outcomes=[*completed(bad, "a", lease), *completed(bad, "b", lease)]))[ANSWERS]
    assert answers == [Reply.OK, Reply.OK]


async def places(backend: RedisBackend, run_id: str) -> dict[str, object]:
    """All that is stored of a run: its own keys, and its members in the queue and among the running."""
    keys = backend.partitions[0]
    found: dict[str, object] = {}
    for key, value in (await snapshot(backend)).items():
        if run_id.encode() in key:
            found[key.decode()] = value
    for key in (keys.scheduled("flow", 0), keys.running, keys.ended, keys.index("flow", "running")):
        found[key] = {member: at for member, at in (await scores(backend, key)).items() if run_id in member}
    return found


@pytest.mark.parametrize(
    ("corrupt", "more"),
    [("i", ()), ("i", ("due",)), ("o:z", ("due",))],
    ids=["what the call itself scheduled", "what was due before", "after another of its steps was claimed"],
)
async def test_a_claim_that_raises_takes_its_run_with_it_and_no_other(
    backend: RedisBackend, corrupt: str, more: tuple[str, ...]
) -> None:
    """Outcomes of the same call were settled before the claim raised: they are refused too, and none is half written."""
    workflow = plan(step("a"), step("z"), *(step(name) for name in more), step("last", "a", "z"))
    text = '"' + "long" * 50 + '"'  # by reference, so that a claim reads it from the stream
    bad, good = [await submit(backend, workflow, input=text) for _ in range(2)]
    leases = {}
    for run_id in (bad, good):
        await backend.complete_step(await claim(backend, run_id, "z"), text)
        leases[run_id] = (await claim(backend, run_id, "a")).lease
    run_key = backend.keys_of(bad).run(bad)
    sound = await backend.client.hget(run_key, corrupt)  # type: ignore[misc]
    await backend.client.hset(run_key, corrupt, "@no stream id")  # type: ignore[misc]
    before = await places(backend, bad)
    outcomes = [part for run_id, lease in leases.items() for part in completed(run_id, "a", lease)]
    reply = await turn(backend, 1, want=9, outcomes=outcomes)
    refused, taken = reply[ANSWERS]
    assert (refused[0], taken) == (Reply.REJECTED, Reply.OK)
    assert b"is no id of an event" in refused[1]
    assert {(entry[0].decode(), entry[1].decode()) for entry in reply[CLAIMS]} == {(good, n) for n in (*more, "last")}
    assert await places(backend, bad) == before
    assert (await history(backend, good))[-1] == "StepStarted last"
    # the run is not stranded: once it is sound again, the outcome sent again goes through
    await backend.client.hset(run_key, corrupt, sound)  # type: ignore[misc]
    reply = await turn(backend, 2, want=9, outcomes=completed(bad, "a", leases[bad]))
    assert reply[ANSWERS] == [Reply.OK]
    assert {entry[1].decode() for entry in reply[CLAIMS]} == {*more, "last"}


@pytest.mark.parametrize("asked", [("a",), ("a", "b")], ids=["what was due", "what the call itself scheduled"])
async def test_a_claim_of_a_lone_step_that_raises_takes_its_run_with_it(
    backend: RedisBackend, asked: tuple[str, ...]
) -> None:
    """As above, where a run has no other step in the call."""
    text = '"' + "long" * 50 + '"'
    bad, good = [await submit(backend, CHAIN, input=text) for _ in range(2)]
    outcomes: list[object] = []
    if asked[-1] == "b":
        lease = (await turn(backend, 1, want=2))[NOW]
        outcomes = [part for run_id in (bad, good) for part in completed(run_id, "a", lease)]
    run_key = backend.keys_of(bad).run(bad)
    sound = await backend.client.hget(run_key, "i")  # type: ignore[misc]
    await backend.client.hset(run_key, "i", "@no stream id")  # type: ignore[misc]
    before = await places(backend, bad)
    reply = await turn(backend, 2, want=9, outcomes=outcomes)
    assert [answer if answer == Reply.OK else answer[0] for answer in reply[ANSWERS]] == [Reply.REJECTED, Reply.OK][
        : len(outcomes)
    ]
    assert [(entry[0].decode(), entry[1].decode()) for entry in reply[CLAIMS]] == [(good, asked[-1])]
    assert await places(backend, bad) == before
    await backend.client.hset(run_key, "i", sound)  # type: ignore[misc]
    reply = await turn(backend, 3, want=9, outcomes=outcomes[:7])
    assert [(entry[0].decode(), entry[1].decode()) for entry in reply[CLAIMS]] == [(bad, asked[-1])]


async def test_a_run_whose_places_could_not_be_written_goes_on_to_its_end(backend: RedisBackend) -> None:
    """What one call made of it, to be mended by others, is no part of what the next one knows of it."""
    run_id = await submit(backend, ONE)
    keys = backend.keys_of(run_id)
    await backend.client.set(keys.index("flow", "running"), "no set")
    reply = await turn(backend, 1, want=1)
    assert reply[CLAIMS][0][0].decode() == run_id
    await backend.client.delete(keys.index("flow", "running"))
    assert (await turn(backend, 2, outcomes=completed(run_id, "a", reply[NOW])))[ANSWERS] == [Reply.OK]
    assert (await history(backend, run_id))[-1] == "WorkflowCompleted"
    await reclaim(backend)  # takes up what was left to others


async def test_what_the_hash_says_counts_and_not_what_the_last_call_made_of_it(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    key = backend.keys_of(run_id).run(run_id)
    before = await backend.client.dump(key)
    lease = (await turn(backend, 1, want=1))[NOW]
    claimed = await backend.client.dump(key)
    await backend.client.restore(key, 0, before, replace=True)
    assert (await turn(backend, 2, outcomes=completed(run_id, "a", lease)))[ANSWERS] == [Reply.STALE]
    await backend.client.restore(key, 0, claimed, replace=True)
    assert (await turn(backend, 3, outcomes=completed(run_id, "a", lease)))[ANSWERS] == [Reply.OK]


async def test_a_worker_with_nothing_to_do_sleeps_and_is_woken_once(backend: RedisBackend) -> None:
    keys = backend.partitions[0]
    assert (await turn(backend, 1, want=1, queues="flow"))[ASLEEP] == 1
    sleepers = keys.sleepers("flow")
    assert list(await scores(backend, sleepers)) == ["w1.x"]
    assert await backend.client.ttl(sleepers) > 0
    async with backend.client.pubsub() as pubsub:
        await pubsub.execute_command("SSUBSCRIBE", keys.wake_channel("w1.x"))
        message = await pubsub.get_message(timeout=5)
        assert message is not None
        await submit(backend, ONE)
        message = await pubsub.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"w"
    assert await scores(backend, sleepers) == {}


async def test_half_a_partition_is_left_alone(backend: RedisBackend) -> None:
    """A queue member without its run proves that keys are missing: nothing is written until they are back."""
    run_id = await submit(backend, ONE)
    keys = backend.partitions[0]
    saved = await backend.client.dump(keys.run(run_id))
    await backend.client.delete(keys.run(run_id))
    before = await snapshot(backend)
    script = backend.scripts["turn"]
    argv = script.pack(
        [], epoch=backend.epoch, worker="w1.x", lane=0, seq=1, want=1, queues="*", slots=b"\xcd\0\0",
        body=pack({"wi": "w1", "wc": 1})[1:], asleep=0, handed=-1,
    )  # fmt: skip
    assert await backend.server.call_once(script, keys, argv) == [Reply.TORN]
    assert await snapshot(backend) == before
    await backend.client.restore(keys.run(run_id), 0, saved)
    assert (await backend.server.call_once(script, keys, argv))[OK] == Reply.OK


async def test_claims_stay_within_the_byte_budget(backend: RedisBackend) -> None:
    """What goes over is named, for the worker to fetch; nothing is lost."""
    large = '"' + "x" * 1_000_000 + '"'
    for _ in range(7):
        await submit(backend, ONE, input=large)
    reply = await turn(backend, 1, want=10)
    claims = reply[CLAIMS]
    assert len(claims) == 7
    assert sum(len(entry[4]) for entry in claims) < 6_000_000
    for entry in claims:
        assert (await backend.resolve_claim(0, reply[NOW], entry)).input == large


async def test_a_turn_does_not_take_what_another_claimed(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    await claim(backend, run_id, "a")
    assert (await turn(backend, 1, want=5))[CLAIMS] == []
