"""The turn as a script: repeats and latecomers of a lane."""

from __future__ import annotations

from typing import Any

import pytest

from redisflow import Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.turns import SLOTS
from redisflow.backend.types import Claim, Submission
from redisflow.codec import pack

flow = Workflow("turned", input=int)


@flow.step
async def step(number: int) -> int:
    return number


class Speaker:
    """Speaks to the server as one worker would."""

    def __init__(self, backend: RedisBackend, worker: str = "w.boot") -> None:
        self.backend = backend
        self.worker = worker

    async def turn(self, seq: int, want: int = 0, outcomes: tuple[Any, ...] = (), lane: int = 0) -> list[Any]:
        script = self.backend.scripts["turn"]
        argv = script.pack(
            outcomes, epoch=self.backend.epoch, worker=self.worker, lane=str(lane), seq=seq, want=want,
            queues="turned",
            slots=b"".join(SLOTS[:want]), body=pack({"wi": self.worker, "wc": 10})[1:], asleep=0, handed=-1,
        )  # fmt: skip
        return await self.backend.server.call_once(script, self.backend.partitions[0], argv)


def done(claimed: list[Any], lease: int, output: str = "1") -> tuple[Any, ...]:
    return claimed[0], claimed[1], lease, "c", pack({"a": claimed[3], "d": 1, "x": False}), output, ""


@pytest.fixture
async def speaker(backend: RedisBackend) -> Speaker:
    await backend.register_plan(flow.plan)
    await backend.submit(flow.plan, [Submission(input=str(n)) for n in range(6)])
    return Speaker(backend)


async def snapshot(backend: RedisBackend) -> dict[bytes, Any]:
    """All keys of the namespace but leases and caches."""
    found = {}
    async for key in backend.client.scan_iter(match=f"{backend.partitions[0].prefix}*"):
        name = key[len(backend.partitions[0].prefix) :]
        if not name.startswith((b"meta", b"workers", b"sleepers")):
            found[key] = await backend.client.dump(key)
    return found


async def test_a_repeated_turn_gives_the_same_answer_and_changes_nothing(speaker: Speaker) -> None:
    first = await speaker.turn(1, want=3)
    assert len(first[5]) == 3
    before = await snapshot(speaker.backend)
    again = await speaker.turn(1, want=3)
    assert again[0] == Reply.OK
    assert again[1] == first[1]  # the lease
    assert again[5] == first[5]
    assert await snapshot(speaker.backend) == before


async def test_a_repeated_turn_answers_its_outcomes_alike(speaker: Speaker) -> None:
    reply = await speaker.turn(1, want=2)
    outcomes = (*done(reply[5][0], reply[1]), *done(reply[5][1], reply[1] - 1))
    first = await speaker.turn(2, outcomes=outcomes)
    again = await speaker.turn(2, outcomes=outcomes)
    assert first[4] == again[4] == [Reply.OK, Reply.STALE]


async def test_a_repeat_leaves_out_claims_whose_lease_was_lost(speaker: Speaker) -> None:
    backend = speaker.backend
    reply = await speaker.turn(1, want=3)
    lost, cancelled, kept = reply[5]
    claim = Claim(lost[0].decode(), "step", 1, reply[1], None, {})
    assert (await backend.complete_step(claim, "1")).recorded
    await backend.cancel_run(cancelled[0].decode())
    again = await speaker.turn(1, want=3)
    assert again[5] == [kept]
    assert again[1] == reply[1]


async def test_a_repeat_leaves_out_a_step_that_another_runs_now(speaker: Speaker) -> None:
    backend = speaker.backend
    reply = await speaker.turn(1, want=1)
    await backend.reclaim_round(0, threshold_us=0, reclaimed_by="tester")
    again = await speaker.turn(1, want=1)
    assert (again[0], again[5]) == (Reply.OK, [])
    settled = await speaker.turn(2, outcomes=done(reply[5][0], reply[1]))
    assert settled[4] == [[Reply.CONFLICT, b"r"]]  # its lease ended, but as reclaimed


async def test_an_old_turn_that_arrives_late_changes_nothing(speaker: Speaker) -> None:
    first = await speaker.turn(1, want=2)
    second = await speaker.turn(2, want=1, outcomes=done(first[5][0], first[1]))
    before = await snapshot(speaker.backend)
    late = await speaker.turn(1, want=2, outcomes=done(first[5][1], first[1]))
    assert late == [Reply.OLD_TURN, 2]
    assert await snapshot(speaker.backend) == before
    assert (await speaker.turn(2, want=1, outcomes=done(first[5][0], first[1])))[5] == second[5]


async def test_lanes_know_nothing_of_each_other(speaker: Speaker) -> None:
    first, second = await speaker.turn(5, want=2), await speaker.turn(1, want=2, lane=1)
    ids = {claimed[0] for reply in (first, second) for claimed in reply[5]}
    assert len(ids) == 4
    assert (await speaker.turn(1, want=2, lane=1))[5] == second[5]
    assert (await speaker.turn(4, want=2))[0] == Reply.OLD_TURN


async def test_an_idle_turn_counts_too(speaker: Speaker) -> None:
    await speaker.turn(1)
    await speaker.turn(2)
    assert (await speaker.turn(1, want=2))[0] == Reply.OLD_TURN


async def test_an_outcome_sent_twice_under_new_numbers_is_recorded_once(speaker: Speaker) -> None:
    reply = await speaker.turn(1, want=1)
    outcome = done(reply[5][0], reply[1])
    assert (await speaker.turn(2, outcomes=outcome))[4] == [Reply.OK]
    repeated = (await speaker.turn(3, outcomes=outcome))[4]
    assert (repeated[0][0] if isinstance(repeated[0], list) else repeated[0]) in (
        Reply.ALREADY,
        Reply.RUN_ENDED,
    )
    types = [event["type"] for event in await speaker.backend.load_wire_events(reply[5][0][0].decode())]
    assert types.count("StepCompleted") == 1


async def test_a_turn_of_another_epoch_is_refused(speaker: Speaker) -> None:
    speaker.backend.epoch, epoch = "another", speaker.backend.epoch
    try:
        assert (await speaker.turn(1, want=1))[0] == Reply.EPOCH
    finally:
        speaker.backend.epoch = epoch
