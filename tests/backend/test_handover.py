"""A submit claims its step for a worker that sleeps, and the wake-up brings it; what does not arrive comes with the next turn."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.turns import Handover
from redisflow.backend.types import Submission
from redisflow.codec import pack
from redisflow.model.workflow import Plan
from tests.flows import (
    CHAIN,
    ONE,
    PAIR,
    SECOND,
    completed,
    history,
    next_message,
    plan,
    scores,
    status,
    step,
    submit,
    travel,
    turn,
    typed,
)

NOW, ASLEEP, ANSWERS, CLAIMS, MISSED = 1, 3, 4, 5, 6
ALL_EVENTS = ["RunSubmitted", "StepScheduled a", "WorkflowStarted", "StepStarted a"]


class Sleeper:
    """A worker of one partition, by hand."""

    def __init__(self, backend: RedisBackend, worker: str = "w1.x") -> None:
        self.backend = backend
        self.worker = worker
        self.messages: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.seq = 0
        self.handed = 0

    async def listen(self) -> Sleeper:
        channel = self.backend.partitions[0].wake_channel(self.worker)
        await self.backend.listener.subscribe(channel, self.messages.put_nowait)
        return self

    async def turn(self, want: int = 2, outcomes: Any = (), **options: Any) -> list[Any]:
        self.seq += 1
        given = {"handed": self.handed, "queues": "flow", **options}
        return await turn(self.backend, self.seq, want, outcomes, worker=self.worker, **given)

    async def message(self) -> bytes:
        return await next_message(self.messages)

    async def handover(self) -> Handover:
        message = await self.message()
        assert message[:1] == b"h", message
        handover = Handover.unpack(message[1:])
        self.handed = handover.lease
        return handover


@pytest.fixture
async def sleeper(backend: RedisBackend) -> Sleeper:
    """It has turned once in vain, and offers slot 1."""
    sleeper = await Sleeper(backend).listen()
    assert (await sleeper.turn())[ASLEEP] == 2
    return sleeper


async def test_the_wake_up_brings_the_step(backend: RedisBackend, sleeper: Sleeper) -> None:
    run_id = await submit(backend, CHAIN, input="7")
    handover = await sleeper.handover()
    assert handover.claimed == [run_id.encode(), b"a", 1, 1, b"=7"]
    assert await history(backend, run_id) == ALL_EVENTS
    started = (await typed(backend, run_id, "StepStarted"))[0]
    assert (started.worker_id, started.slot_index, started.worker_concurrency) == ("w1.x", 1, 10)
    keys = backend.partitions[0]
    assert await scores(backend, keys.running) == {f"{run_id}|a": handover.lease}
    assert await scores(backend, keys.sleepers("flow")) == {}
    reply = await sleeper.turn(outcomes=completed(run_id, "a", handover.lease))
    assert reply[ANSWERS] == [Reply.OK]
    assert [entry[1] for entry in reply[CLAIMS]] == [b"b"]
    assert len(reply) == MISSED


async def test_it_is_the_same_as_a_claim_by_a_turn(backend: RedisBackend, sleeper: Sleeper) -> None:
    handed = await submit(
        backend, plan(step("a"), input_schema={"type": "integer"}), input="7", priority=3, tags=["eu"]
    )
    await sleeper.handover()
    claimed = await submit(
        backend, plan(step("a"), input_schema={"type": "integer"}), input="7", priority=3, tags=["eu"]
    )
    await sleeper.turn()
    one, other = [await backend.load_wire_events(run_id) for run_id in (handed, claimed)]
    for wire in one + other:
        for name in ("eventId", "timestampUs", "runId", "slotIndex"):
            wire.pop(name, None)
    assert one[0].pop("availableAtUs") < other[0].pop("availableAtUs")
    assert one[1].pop("availableAtUs") < other[1].pop("availableAtUs")
    assert one == other
    assert len(one) == 5


async def test_one_step_a_wake_up_and_the_rest_by_turns(backend: RedisBackend, sleeper: Sleeper) -> None:
    run_id = await submit(backend, PAIR)
    handover = await sleeper.handover()
    assert handover.claimed is not None
    assert (handover.claimed[0].decode(), handover.claimed[1]) == (run_id, b"a")
    assert [entry[:2] for entry in (await sleeper.turn(want=9))[CLAIMS]] == [[run_id.encode(), b"b"]]


async def test_of_several_runs_the_most_urgent_goes_first(backend: RedisBackend, sleeper: Sleeper) -> None:
    results = await backend.submit(ONE, [Submission(), Submission(priority=5)])
    assert await sleeper.message() == b"w"
    assert [entry[0].decode() for entry in (await sleeper.turn(want=1))[CLAIMS]] == [results[1].run_id]


async def test_the_next_sleeper_gets_the_next_run(backend: RedisBackend, sleeper: Sleeper) -> None:
    other = await Sleeper(backend, "w2.x").listen()
    await other.turn()
    first, second, third = [await submit(backend, ONE) for _ in range(3)]
    assert (await other.handover()).claimed[0].decode() == first  # type: ignore[index]
    assert (await sleeper.handover()).claimed[0].decode() == second  # type: ignore[index]
    assert await status(backend, third) == "pending"


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_what_did_not_arrive_comes_with_the_next_turn(
    backend: RedisBackend, sleeper: Sleeper, acknowledged: bool
) -> None:
    run_id = await submit(backend, ONE, input="7")
    lease = (await scores(backend, backend.partitions[0].running))[f"{run_id}|a"]
    more = [await submit(backend, ONE) for _ in range(2)]
    reply = await sleeper.turn(want=2)
    assert reply[MISSED] == [lease, b"\xcd\x00\x01", [run_id.encode(), b"a", 1, 1, b"=7"]]
    assert [entry[0].decode() for entry in reply[CLAIMS]] == more[:1]  # its slot is one of the two
    started = (await typed(backend, more[0], "StepStarted"))[0]
    assert started.slot_index == 0
    if acknowledged:
        sleeper.handed = lease
        reply = await sleeper.turn(want=2)
        assert len(reply) == MISSED
        assert reply[ASLEEP] == 2
    else:
        reply = await sleeper.turn(want=3)
        assert reply[MISSED][0] == lease
        assert reply[ASLEEP] == 1  # nothing more is handed over before this has arrived
    assert [entry[0].decode() for entry in reply[CLAIMS]] == more[1:]


async def test_a_repeated_turn_tells_again_what_did_not_arrive(backend: RedisBackend, sleeper: Sleeper) -> None:
    run_id = await submit(backend, ONE)
    first = await sleeper.turn()
    sleeper.seq -= 1
    again = await sleeper.turn()
    assert again[MISSED] == first[MISSED]
    assert again[MISSED][2][0].decode() == run_id


async def test_of_what_was_taken_back_only_the_lease_is_told(backend: RedisBackend, sleeper: Sleeper) -> None:
    run_id = await submit(backend, ONE)
    lease = (await scores(backend, backend.partitions[0].running))[f"{run_id}|a"]
    await backend.cancel_run(run_id)
    assert (await sleeper.turn())[MISSED] == [lease, b"\xcd\x00\x01"]


async def test_what_cannot_be_read_again_stops_no_turn(backend: RedisBackend, sleeper: Sleeper) -> None:
    run_id = await submit(backend, ONE)
    lease = (await scores(backend, backend.partitions[0].running))[f"{run_id}|a"]
    key = backend.partitions[0].run(run_id)
    saved = await backend.client.dump(key)
    await backend.client.hset(key, "h", "short")
    assert (await sleeper.turn())[MISSED] == [lease, b"\xcd\x00\x01"]
    await backend.client.restore(key, 0, saved, replace=True)


async def test_a_turn_withdraws_the_offer(backend: RedisBackend, sleeper: Sleeper) -> None:
    assert (await sleeper.turn(want=0, asleep=1))[ASLEEP] == 0
    run_id = await submit(backend, ONE)
    assert await status(backend, run_id) == "pending"
    assert len((await sleeper.turn(want=1))[CLAIMS]) == 1  # it has no slot to offer now
    await backend.client.zadd(backend.partitions[0].sleepers("flow"), {"w1.x": await backend.now()})
    assert await status(backend, await submit(backend, ONE)) == "pending"
    assert await sleeper.message() == b"w"


async def test_who_offers_nothing_is_woken_only(backend: RedisBackend) -> None:
    sleeper = await Sleeper(backend).listen()
    assert (await sleeper.turn(handed=-1))[ASLEEP] == 1
    assert await history(backend, await submit(backend, ONE)) == ALL_EVENTS[:2]
    assert await sleeper.message() == b"w"


async def test_a_worker_that_is_gone_gets_nothing(backend: RedisBackend) -> None:
    """Its subscription ends with its connection, long before it would count as stale."""
    assert (await Sleeper(backend).turn())[ASLEEP] == 2
    assert await history(backend, await submit(backend, ONE)) == ALL_EVENTS[:2]


async def test_a_broken_hint_fails_no_submit(backend: RedisBackend, sleeper: Sleeper) -> None:
    keys = backend.partitions[0]
    await backend.client.delete(keys.worker("w1.x"))
    await backend.client.set(keys.worker("w1.x"), "text")
    assert await history(backend, await submit(backend, ONE)) == ALL_EVENTS[:2]
    await backend.client.set(keys.sleepers("flow"), "text")
    assert await history(backend, await submit(backend, ONE)) == ALL_EVENTS[:2]
    await backend.client.delete(keys.worker("w1.x"), keys.sleepers("flow"))


async def test_a_wake_up_goes_on_to_who_is_there(backend: RedisBackend) -> None:
    sleeper = await Sleeper(backend).listen()
    await sleeper.turn(handed=-1)
    for gone in ("w2.x", "w3.x"):
        await Sleeper(backend, gone).turn()
    await submit(backend, ONE)
    assert await sleeper.message() == b"w"
    assert await scores(backend, backend.partitions[0].sleepers("flow")) == {}


async def test_a_wake_up_looks_no_further_than_the_first_stale_one(backend: RedisBackend) -> None:
    """However many workers have died while others kept the key alive."""
    sleepers = backend.partitions[0].sleepers("flow")
    await backend.client.zadd(sleepers, {f"w{n}.x": await backend.now() - 3 * SECOND for n in range(50)})
    await submit(backend, ONE)
    assert len(await scores(backend, sleepers)) == 49
    await backend.client.expire(sleepers, 60)


async def test_a_worker_that_fell_asleep_long_ago_gets_nothing(backend: RedisBackend, sleeper: Sleeper) -> None:
    await travel(backend, 3 * SECOND)
    assert await history(backend, await submit(backend, ONE)) == ALL_EVENTS[:2]


async def test_what_is_due_already_goes_first(backend: RedisBackend, sleeper: Sleeper) -> None:
    """It became due without a call that wakes."""
    early = await submit(backend, ONE, delay_us=SECOND)
    await travel(backend, SECOND)
    late = await submit(backend, ONE)
    assert [entry[0].decode() for entry in (await sleeper.turn())[CLAIMS]] == [early, late]


@pytest.mark.parametrize(
    ("workflow", "options"),
    [(plan(step("a", queue="other")), {}), (ONE, {"delay_us": SECOND}), (ONE, {"available_at_us": 2**52})],
)
async def test_another_queue_and_later_steps_are_not_for_it(
    backend: RedisBackend, sleeper: Sleeper, workflow: Plan, options: dict[str, Any]
) -> None:
    assert await history(backend, await submit(backend, workflow, **options)) == ALL_EVENTS[:2]


async def test_a_long_input_is_named_for_the_worker_to_fetch(backend: RedisBackend, sleeper: Sleeper) -> None:
    large = '"' + "x" * 100_000 + '"'
    run_id = await submit(backend, ONE, input=large)
    handover = await sleeper.handover()
    assert handover.claimed is not None
    assert handover.claimed[4].startswith(b"@")
    assert (await backend.resolve_claim(0, handover.lease, handover.claimed)).input == large
    assert await history(backend, run_id) == ALL_EVENTS


async def test_a_repeated_submission_hands_nothing_over(backend: RedisBackend, sleeper: Sleeper) -> None:
    script, keys = backend.scripts["submit"], backend.partitions[0]
    number = await backend.plan_number(ONE, 0)
    argv = script.pack(["r1.x", pack({"pl": number}), ""], epoch=backend.epoch, request="q")
    first = await backend.server.call_once(script, keys, argv)
    await sleeper.handover()
    await sleeper.turn()
    assert await backend.server.call_once(script, keys, argv) == first
    assert await history(backend, "r1.x") == ALL_EVENTS


async def test_a_known_key_hands_nothing_over(backend: RedisBackend, sleeper: Sleeper) -> None:
    await submit(backend, ONE, idempotency_key="k")
    await sleeper.handover()
    await sleeper.turn()
    (again,) = await backend.submit(ONE, [Submission(idempotency_key="k")])
    assert not again.is_new
    assert await history(backend, again.run_id) == ALL_EVENTS
    assert sleeper.messages.empty()
