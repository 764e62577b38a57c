"""The stream: all events of a call on a run stand in one entry, and each is found by its own id."""

from __future__ import annotations

from redisflow.backend.entries import share_events
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.glance import latest_failures, read_after, rest_of_entry
from redisflow.codec import pack
from tests.flows import (
    CHAIN,
    ONE,
    PAIR,
    claim,
    complete,
    completed,
    done,
    fan_out,
    history,
    pack_entry,
    plan,
    reclaim,
    retry,
    step,
    submit,
    turn,
    typed,
)


async def ids(backend: RedisBackend, run_id: str) -> list[str]:
    return [stream_id.decode() async for stream_id, _ in backend.read_stream(run_id)]


async def entries(backend: RedisBackend, run_id: str) -> int:
    return int(await backend.client.xlen(backend.keys_of(run_id).events(run_id)))


async def test_a_transition_is_one_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    assert (await history(backend, run_id), await entries(backend, run_id)) == (["RunSubmitted", "StepScheduled a"], 1)
    claimed = await claim(backend, run_id, "a")
    assert ((await history(backend, run_id))[2:], await entries(backend, run_id)) == (
        ["WorkflowStarted", "StepStarted a"], 2,
    )  # fmt: skip
    done(await backend.complete_step(claimed, "1"))
    assert ((await history(backend, run_id))[4:], await entries(backend, run_id)) == (
        ["StepCompleted a", "StepScheduled b"], 3,
    )  # fmt: skip
    wire = await backend.load_wire_events(run_id)
    numbers = [int(event["eventId"]) for event in wire]
    assert numbers == sorted(set(numbers))
    assert [second - first for first, second in zip(numbers[::2], numbers[1::2], strict=True)] == [1, 1, 1]


async def test_what_is_too_much_for_an_entry_makes_several_without_a_gap(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(400))
    assert await entries(backend, run_id) == 2
    first, *rest = [stream_id.split("-") for stream_id in await ids(backend, run_id)]
    assert [*rest] == [[first[0], str(int(first[1]) + n)] for n in range(1, 401)]


async def test_newest_first_is_the_other_way_round(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a")
    key = backend.keys_of(run_id).events(run_id)
    assert await backend.client.xrevrange(key) == (await backend.client.xrange(key))[::-1]


async def test_an_output_is_found_behind_another_event_of_its_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), step("c", "a", "b")))
    long = {name: '"' + name * 200 + '"' for name in "ab"}  # kept by reference
    lease = (await turn(backend, 1, want=2))[1]
    outcomes = [part for name in "ab" for part in completed(run_id, name, lease, output=long[name])]
    reply = await turn(backend, 2, want=1, outcomes=outcomes)
    resolved = await backend.resolve_claim(0, reply[1], reply[5][0])
    assert (resolved.step_id, resolved.outputs) == ("c", long)


async def test_a_claim_finds_an_output_behind_another_event_of_its_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), step("c", "a", "b")))
    long = {name: '"' + name * 200 + '"' for name in "ab"}
    lease = (await turn(backend, 1, want=2))[1]
    await turn(
        backend, 2, outcomes=[part for name in "ab" for part in completed(run_id, name, lease, output=long[name])]
    )
    claimed = (await turn(backend, 3, want=1))[5][0]
    assert [part.decode() for part in claimed[5:]] == ["a", "=" + long["a"], "b", "=" + long["b"]]


async def test_a_failure_is_found_behind_another_event_of_its_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a", retry=retry(crashes=0))))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    assert (await history(backend, run_id))[-3:] == ["StepReclaimed a", "StepFailed a", "WorkflowFailed"]
    (failure,) = await typed(backend, run_id, "StepFailed")
    assert await latest_failures(backend, 5) == [failure]
    await backend.delete_step_events("flow", run_id, ["a"])
    assert await latest_failures(backend, 5) == []


async def test_a_failed_run_tells_of_a_failure_behind_another_event(backend: RedisBackend) -> None:
    """The run ends in a later call than its first failure, whose event is then read from the stream."""
    run_id = await submit(backend, plan(step("a", retry=retry(crashes=0)), step("b"), on_error="finish"))
    await claim(backend, run_id, "a")
    await reclaim(backend)
    await complete(backend, run_id, "b")
    (failed,) = await typed(backend, run_id, "WorkflowFailed")
    assert (failed.failed_step, failed.error.name) == ("a", "WorkerCrashed")


async def test_reading_goes_on_from_the_middle_of_an_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    await complete(backend, run_id, "a")
    wanted = await ids(backend, run_id)
    assert len(wanted) == 6
    for place, stream_id in enumerate(wanted[:-1]):
        found = [event async for event in backend.follow(run_id, after=stream_id)]
        assert [event.event_id for event in found] == [
            wire["eventId"] for wire in (await backend.load_wire_events(run_id))[place + 1 :]
        ]
        page = await rest_of_entry(backend, run_id, stream_id)
        page += (await read_after(backend, {run_id: page[-1][0] if page else stream_id}, 10))[run_id]
        assert [found_id for found_id, _ in page] == wanted[place + 1 :]


async def test_erasing_leaves_what_stands_in_the_same_entry(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await complete(backend, run_id, "a", "b")
    before = await backend.load_wire_events(run_id)
    of_a = [wire for wire in before if wire.get("stepId") == "a"]
    assert await backend.delete_step_events("flow", run_id, ["a"]) == len(of_a)
    assert await backend.load_wire_events(run_id) == [wire for wire in before if wire not in of_a]
    key = backend.keys_of(run_id).events(run_id)
    info = await backend.client.xinfo_stream(key)
    assert info["entries-added"] > info["length"]  # readers see that something is gone
    assert await backend.client.exists(key + ":new") == 0


async def test_erasing_keeps_events_whose_times_are_in_another_order(backend: RedisBackend) -> None:
    """A rerun begins with its submission, and copies behind it what happened before."""
    await backend.register_plan(CHAIN)
    parent = await submit(backend, CHAIN)
    await complete(backend, parent, "a", "b")
    again = await backend.rerun_from(parent, "b")
    await complete(backend, again, "b")
    before = await backend.load_wire_events(again)
    assert before != sorted(before, key=lambda wire: wire["timestampUs"])
    assert await backend.delete_step_events("flow", again, ["b"]) > 2
    assert await backend.load_wire_events(again) == [wire for wire in before if wire.get("stepId") != "b"]


def test_a_value_that_is_no_event_of_ours_does_not_stop_the_reader() -> None:
    class Library:
        def __init__(self) -> None:
            self.callbacks: dict[str, object] = {}

        def set_response_callback(self, name: str, callback: object) -> None:
            self.callbacks[name] = callback

    library = Library()
    share_events(library)
    read = library.callbacks["XRANGE"]
    values = pack_entry(("StepStarted", "a", pack({"a": 1}), ""), ("StepCompleted", "a", pack({"a": 1}), '"é"'))
    raw = [
        [b"7-3", values],
        [b"8-0", [b"odd", b"\xc1"]],
    ]
    found = read(raw)  # type: ignore[operator]
    assert [(stream_id, event[b"type"], event[b"payload"]) for stream_id, event in found] == [
        (b"7-3", b"StepStarted", b""), (b"7-4", b"StepCompleted", '"é"'.encode()), (b"8-0", b"odd", b""),
    ]  # fmt: skip
