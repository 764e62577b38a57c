"""append_event and batch_append_events: what they fill in, keep and refuse; and histories that must come out as they went in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redisflow.backend.base import Backend
from redisflow.model.errors import InvalidArgument, PayloadTooLarge, RunNotFound, UsageError
from redisflow.model.events import parse_event
from tests import check_vectors
from tests.conformance.conftest import CASES, Contract
from tests.conftest import assert_consistent
from tests.flows import snapshot

T = 1_700_000_000_000_000
STARTED: dict[str, Any] = {
    "type": "WorkflowStarted", "category": "workflow", "versionId": "v1", "workflowAttemptNumber": 1, "hasInputSchema": False,
    "hasInput": False,
}  # fmt: skip
LOG: dict[str, Any] = {
    "type": "LogEntry", "category": "step", "stepId": "a", "stream": "stdout", "message": "hi", "attemptNumber": 1,
}  # fmt: skip
COMPLETED: dict[str, Any] = {
    "type": "StepCompleted", "category": "step", "stepId": "a", "output": "1", "durationUs": 5, "attemptNumber": 1,
    "exportOutput": False,
}  # fmt: skip


async def test_id_and_time_are_filled_in(contract: Backend) -> None:
    first = await contract.append_event("flow", "r1", STARTED)
    second = await contract.append_event("flow", "r1", LOG)
    events = await contract.load_events("flow", "r1")
    assert [event.event_id for event in events] == [first, second]
    assert int(first) < int(second)
    assert [str(event.timestamp_us) for event in events] == [first, second]
    assert {(event.workflow_slug, event.run_id) for event in events} == {("flow", "r1")}


async def test_a_given_id_and_time_are_kept(contract: Backend) -> None:
    event = {**STARTED, "eventId": "5000", "timestampUs": 77}
    assert await contract.append_event("flow", "r1", event) == "5000"
    (found,) = await contract.load_events("flow", "r1")
    assert (found.event_id, found.timestamp_us) == ("5000", 77)


async def test_an_id_not_above_the_last_gives_way(contract: Backend) -> None:
    first = await contract.append_event("flow", "r1", STARTED)
    again = await contract.append_event("flow", "r1", {**LOG, "eventId": first, "timestampUs": T})
    assert int(again) > int(first)
    assert (await contract.load_events("flow", "r1", types=["LogEntry"]))[0].timestamp_us == T


async def test_an_id_of_the_future_is_refused(contract: Contract) -> None:
    await contract.append_event("flow", "r1", STARTED)
    before = await snapshot(contract)
    with pytest.raises(InvalidArgument, match="future"):
        await contract.append_event("flow", "r1", {**LOG, "eventId": str(2**53 - 1)})
    assert await snapshot(contract) == before


async def test_events_of_types_of_ones_own_are_kept_and_change_nothing(contract: Contract) -> None:
    await contract.append_event("flow", "r1", STARTED)
    await contract.append_event("flow", "r1", COMPLETED)
    before = await contract.get_run("r1"), await contract.load_run("flow", "r1")
    for own in ({"category": "workflow"}, {"category": "step", "stepId": "a"}, {"category": "step", "stepId": "never"}):
        await contract.append_event("flow", "r1", {"type": "x.note", **own, "who": "ann", "deep": {"a": [1, None]}})
    notes = await contract.load_events("flow", "r1", types=["x.note"])
    assert [note.to_wire()["who"] for note in notes] == ["ann"] * 3
    assert notes[1].to_wire()["stepId"] == "a"
    assert await contract.get_run("r1") == before[0]
    assert [record for record in await contract.load_run("flow", "r1") if record.step_id == "a"] == before[1]
    await assert_consistent(contract)


async def test_models_are_taken_too(contract: Backend) -> None:
    event = parse_event({**STARTED, "eventId": "9", "timestampUs": T, "workflowSlug": "flow", "runId": "r1"})
    await contract.append_event("flow", "r1", event)  # type: ignore[arg-type]
    assert await contract.load_events("flow", "r1") == [event]


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Nonsense"}, {"type": None}, {"category": None}, {"attemptNumber": 0}, {"attemptNumber": 2**24},
        {"attemptNumber": "1"}, {"stepId": "../x y"}, {"stepId": None}, {"output": None}, {"output": "{"}, {"output": "\ud800"},
        {"durationUs": 1.5}, {"durationUs": 2**60}, {"timestampUs": -1}, {"timestampUs": 2**60}, {"eventId": "x"},
        {"eventId": 7}, {"eventId": "9" * 30}, {"runId": "r2"}, {"workflowSlug": "other"}, {"exportOutput": 1},
    ],
    ids=str,
)  # fmt: skip
async def test_a_wrong_event_is_refused_before_anything_is_written(contract: Contract, change: dict[str, Any]) -> None:
    await contract.append_event("flow", "r1", STARTED)
    before = await snapshot(contract)
    with pytest.raises(UsageError):
        await contract.batch_append_events([("flow", "r1", LOG), ("flow", "r1", {**COMPLETED, **change})])
    assert await snapshot(contract) == before


async def test_what_is_no_event_is_refused(contract: Backend) -> None:
    with pytest.raises(InvalidArgument, match="event="):
        await contract.append_event("flow", "r1", "StepStarted")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="run_id"):
        await contract.append_event("flow", "r 1", STARTED)
    with pytest.raises(InvalidArgument, match="workflow_slug"):
        await contract.append_event("f/w", "r1", STARTED)


async def test_a_payload_over_the_cap_is_refused(contract: Contract) -> None:
    await contract.append_event("flow", "r1", STARTED)
    large = '"' + "x" * contract.settings.max_payload_bytes + '"'
    with pytest.raises(PayloadTooLarge):
        await contract.append_event("flow", "r1", {**COMPLETED, "output": large})


@pytest.mark.parametrize("event", [LOG, COMPLETED], ids=["log", "completed"])
async def test_only_a_submission_or_start_creates_a_run(contract: Contract, event: dict[str, Any]) -> None:
    before = await snapshot(contract)
    with pytest.raises(RunNotFound):
        await contract.append_event("flow", "r1", event)
    assert not await contract.run_exists("flow", "r1")
    assert await snapshot(contract) == before


async def test_a_batch_is_whole_in_its_partition(contract: Contract) -> None:
    with pytest.raises(RunNotFound):
        await contract.batch_append_events([("flow", "r1", STARTED), ("flow", "r2", LOG)])
    assert not await contract.run_exists("flow", "r1")


async def test_a_batch_goes_over_partitions_in_order(parted: Contract) -> None:
    runs = [f"r{n}" for n in range(20)]
    assert len({parted.partition(run) for run in runs}) > 1
    ids = await parted.batch_append_events([("flow", run, event) for event in (STARTED, LOG) for run in runs])
    for place, run in enumerate(runs):
        events = await parted.load_events("flow", run)
        assert [event.event_id for event in events] == [ids[place], ids[place + 20]]
    assert sorted(await parted.list_run_ids("flow")) == sorted(runs)
    assert await parted.batch_append_events([]) == []


async def test_appends_at_once_all_stand(contract: Backend) -> None:
    await contract.append_event("flow", "r1", STARTED)
    ids = await asyncio.gather(*(contract.append_event("flow", "r1", {**LOG, "message": str(n)}) for n in range(50)))
    logs = await contract.load_events("flow", "r1", step_id="a", category="step")
    assert [event.event_id for event in logs] == sorted(ids, key=int)
    assert len(set(ids)) == 50


async def test_filters(contract: Backend) -> None:
    other = {**LOG, "stepId": "b"}
    await contract.batch_append_events([("flow", "r1", event) for event in (STARTED, LOG, other, COMPLETED)])

    async def found(**options: Any) -> list[str]:
        return [event.type for event in await contract.load_events("flow", "r1", **options)]

    assert await found(category="workflow") == ["WorkflowStarted"]
    assert await found(category="step", step_id="b") == ["LogEntry"]
    assert await found(step_id="a") == ["WorkflowStarted", "LogEntry", "StepCompleted"]
    assert await found(types=["WorkflowStarted", "StepCompleted"]) == ["WorkflowStarted", "StepCompleted"]
    assert await contract.load_events("flow", "no-such-run") == []
    with pytest.raises(InvalidArgument, match="step_id"):
        await found(category="workflow", step_id="a")


HISTORIES = [pytest.param(case, id=case["name"]) for case in CASES]


@pytest.mark.parametrize("case", HISTORIES)
async def test_histories_give_the_states_that_they_must(unchecked: Contract, case: dict[str, Any]) -> None:
    """Event by event with times kept and ids new; then the keys must be what the streams imply."""
    contract = unchecked
    events = [{name: value for name, value in event.items() if name != "eventId"} for event in case["events"]]
    runs = dict.fromkeys((event["workflowSlug"], event["runId"]) for event in events)
    for event in sorted(events, key=lambda event: event["type"] != "RunSubmitted"):
        await contract.append_event(event["workflowSlug"], event["runId"], event)
    loaded = [event for slug, run_id in runs for event in await contract.load_events(slug, run_id)]
    given = [
        event for slug, run_id in runs
        for event in sorted((e for e in events if e["runId"] == run_id), key=lambda e: e["timestampUs"])
    ]  # fmt: skip
    in_order = [event["timestampUs"] for event in given] == [
        event["timestampUs"] for _, run_id in runs for event in events if event["runId"] == run_id
    ]
    stored = [{n: v for n, v in event.to_wire().items() if n != "eventId"} for event in loaded]
    if in_order:
        assert [told(event) for event in stored] == [told(event) for event in given]
        actual = check_vectors.states_of(loaded)
        problems = [
            line for part in ("steps", "runs")
            for line in check_vectors.mismatches(by_id(case["expected"][part]), by_id(actual[part]), part)
        ]  # fmt: skip
        assert problems == []
    for slug, run_id in runs:
        records = {record.step_id: record.to_wire() for record in await contract.load_run(slug, run_id)}
        assert records == {
            step["stepId"]: step["record"]
            for step in check_vectors.states_of(loaded)["steps"]
            if step["runId"] == run_id
        }
    await assert_consistent(contract)


def told(event: dict[str, Any]) -> dict[str, Any]:
    """An event without a delay of 0, which a reader of retries cannot tell from none."""
    return {name: value for name, value in event.items() if (name, value) != ("retryDelayMs", 0)}


def by_id(parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{part['runId']} {part.get('stepId', '')}": part for part in parts}


def test_most_histories_are_in_order_of_time() -> None:
    """Else the test above would check less than it says."""
    ordered = 0
    for case in CASES:
        by_run: dict[str, list[int]] = {}
        for event in case["events"]:
            by_run.setdefault(event["runId"], []).append(event["timestampUs"])
        ordered += all(times == sorted(times) for times in by_run.values())
    assert ordered >= 30
