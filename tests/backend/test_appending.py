"""append: events as given, folded without guard or advance: what imports and tools write."""

from __future__ import annotations

from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.codec import pack
from redisflow.model.errors import RedisflowError
from redisflow.model.events import UnknownEvent
from tests.flows import (
    ERROR,
    ONE,
    PRINTS,
    claim,
    complete,
    field,
    history,
    scores,
    snapshot,
    status,
    statuses,
    submit,
)

HOUR = 3_600_000_000


async def append(
    backend: RedisBackend, run_id: str, *events: tuple[str, str, dict[str, Any]], given: str = ""
) -> list[Any]:
    """Append events: type, step and envelope each; a completion's output is its `o`."""
    rest: list[Any] = []
    for kind, step, fields in events:
        payload = fields.pop("o", "")
        rest += [run_id, kind, step, pack(fields), payload, given]
    return await backend.call("append", backend.partition(run_id), rest)


async def imported(backend: RedisBackend, run_id: str = "old-1", at: int = 1_000_000) -> str:
    """A history without a plan, as an import writes it: a run that started long ago with a step under way."""
    await append(
        backend, run_id,
        ("WorkflowStarted", "", {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False, "ts": at}),
        ("StepScheduled", "a", {"a": 1, "r": "i", "v": at, "ts": at + 1}),
        ("StepStarted", "a", {"a": 1, "wi": "w9", "dp": [], "ts": at + 2}),
    )  # fmt: skip
    return run_id


def ended(at: int) -> tuple[str, str, dict[str, Any]]:
    return "StepCompleted", "a", {"a": 1, "d": 5, "x": False, "ts": at, "o": '"out"'}


def broke(at: int) -> tuple[str, str, dict[str, Any]]:
    return (
        "StepFailed",
        "a",
        {"a": 1, "d": 5, "e": ERROR, "fp": PRINTS, "t": True, "f": "execution-error", "ts": at},
    )


async def test_a_history_without_a_plan(backend: RedisBackend) -> None:
    run_id = await imported(backend)
    await append(
        backend,
        run_id,
        ended(1_000_003),
        ("WorkflowCompleted", "", {"w": 1, "d": 9, "n": 1, "ts": 1_000_004}),
    )
    assert await history(backend, run_id) == [
        "WorkflowStarted", "StepScheduled a", "StepStarted a", "StepCompleted a", "WorkflowCompleted",
    ]  # fmt: skip
    state = await backend.get_run(run_id)
    assert state is not None
    assert (state.workflow_slug, state.status, state.started_at, state.completed_at) == (
        "legacy", "completed", 1_000_000, 1_000_004,
    )  # fmt: skip
    assert await statuses(backend, run_id) == {"a": "completed"}
    assert await scores(backend, backend.partitions[0].ended) == {run_id: 1_000_004}


async def test_an_append_never_ends_a_run_by_itself(backend: RedisBackend) -> None:
    run_id = await imported(backend)
    await append(backend, run_id, ended(1_000_003))
    assert await status(backend, run_id) == "running"


async def test_a_scheduled_step_of_a_history_can_be_claimed(backend: RedisBackend) -> None:
    """Its queue is the slug, as it has no plan."""
    await append(
        backend, "old-2",
        ("WorkflowStarted", "", {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False}),
        ("StepScheduled", "a", {"a": 3, "r": "r", "v": 1_000_000}),
    )  # fmt: skip
    assert list(await scores(backend, backend.partitions[0].levels)) == ["legacy:0"]
    claimed = await claim(backend, "old-2", "a")
    assert claimed.attempt_number == 3
    await backend.complete_step(claimed, "1")


@pytest.mark.parametrize("first", ["completion", "failure"])
async def test_events_out_of_time_order_count_by_their_time(backend: RedisBackend, first: str) -> None:
    run_id = await imported(backend)
    early, late = (
        (broke(1_000_010), ended(1_000_020)) if first == "completion" else (ended(1_000_010), broke(1_000_020))
    )
    await append(backend, run_id, late)
    await append(backend, run_id, early)
    loaded = await backend.load_events("legacy", run_id)
    assert [event.type for event in loaded[-2:]] == [early[0], late[0]]
    found = await field(backend, run_id, "a")
    assert found.status == ("c" if first == "completion" else "f")


@pytest.mark.parametrize("together", [True, False])
async def test_an_end_dated_before_the_start_leaves_the_run_its_workflow(backend: RedisBackend, together: bool) -> None:
    """Clocks differ. The fold replays by time, so the start decides the status, and the run is one of its workflow's."""
    start = ("WorkflowStarted", "", {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False, "ts": 2_000_000})
    end = ("WorkflowCompleted", "", {"w": 1, "d": 5, "n": 1, "ts": 1_000_000})
    for events in [(start, end)] if together else [(start,), (end,)]:
        await append(backend, "old-1", *events)
    state = await backend.get_run("old-1")
    assert state is not None
    assert (state.workflow_slug, state.status) == ("legacy", "running")
    assert (state.created_at, state.started_at, state.completed_at) == (2_000_000, 2_000_000, 1_000_000)
    assert [event.workflow_slug for event in await backend.load_events("legacy", "old-1")] == ["legacy"] * 2
    assert await backend.list_run_ids("legacy") == ["old-1"]
    assert await backend.list_run_ids("-") == []


async def test_a_late_log_line_moves_nothing(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    await complete(backend, run_id, "a")
    before = {key: value for key, value in (await snapshot(backend)).items() if not key.endswith(b":events")}
    await append(backend, run_id, ("LogEntry", "a", {"st": "stdout", "m": "late", "a": 1, "ts": 5}))
    after = {key: value for key, value in (await snapshot(backend)).items() if not key.endswith(b":events")}
    assert after == before
    assert (await history(backend, run_id))[-1] == "LogEntry a"


async def test_unknown_types_are_inert(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    before = {key: value for key, value in (await snapshot(backend)).items() if not key.endswith(b":events")}
    reply = await append(
        backend,
        run_id,
        ("x.signal", "", {"name": "go", "deep": {"list": [1, 2.5, None]}}),
        ("x.timer", "a", {"due": 7}),
    )
    assert reply[0] == Reply.OK
    assert len(reply[1]) == 2
    after = {key: value for key, value in (await snapshot(backend)).items() if not key.endswith(b":events")}
    assert after == before
    assert (await history(backend, run_id))[2:] == ["x.signal", "x.timer a"]
    signal, timer = (await backend.load_events("flow", run_id))[-2:]
    assert isinstance(signal, UnknownEvent)
    assert signal.raw["deep"] == {"list": [1, 2.5, None]}
    assert (timer.category, timer.step_id) == ("step", "a")  # type: ignore[union-attr]
    await complete(backend, run_id, "a")
    assert await status(backend, run_id) == "completed"


async def test_ids_are_answered_and_rise(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    reply = await append(backend, run_id, *[("x.note", "", {"n": n}) for n in range(3)])
    ids = [int(found) for found in reply[1]]
    wire = await backend.load_wire_events(run_id)
    assert [int(event["eventId"]) for event in wire[-3:]] == ids
    assert ids == sorted(set(ids))


async def test_a_given_id_is_kept(backend: RedisBackend) -> None:
    reply = await append(
        backend,
        "old-3",
        ("WorkflowStarted", "", {"wf": "legacy", "vi": "v", "w": 1, "hs": False, "hi": False}),
        given="5000",
    )
    assert reply == [Reply.OK, [b"5000"]]
    (event,) = await backend.load_wire_events("old-3")
    assert (event["eventId"], event["timestampUs"]) == ("5000", 5000)


async def test_a_given_id_of_the_future_is_refused(backend: RedisBackend) -> None:
    """It would make a later event of the run raise in the middle of a commit."""
    run_id = await submit(backend, ONE)
    before = await snapshot(backend)
    now = int(await backend.client.hget(backend.partitions[0].meta, "clock"))  # type: ignore[misc,arg-type]
    try:
        reply = await append(backend, run_id, ("x.note", "", {}), given=str(now + HOUR))
    except RedisflowError:
        reply = []
    assert reply[:1] != [Reply.OK]
    assert await snapshot(backend) == before


async def test_there_is_no_run_to_append_to(backend: RedisBackend) -> None:
    before = await snapshot(backend)
    assert await append(backend, "no-such-run", ("StepStarted", "a", {"a": 1})) == [
        Reply.GONE,
        b"no-such-run",
    ]
    assert await snapshot(backend) == before
