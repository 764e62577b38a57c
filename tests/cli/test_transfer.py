"""Runs exported and imported: the states that follow are the same, and a wrong line writes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.redis.transfer import export_runs, import_runs
from redisflow.backend.types import Submission
from redisflow.model.errors import InvalidInput, RunExists, RunNotFound
from redisflow.model.events import parse_event
from redisflow.model.projections import project_run_state, project_step_state
from redisflow.settings import Settings
from tests.cli.conftest import Call
from tests.conftest import TestServer, assert_consistent
from tests.flows import DIAMOND, ONE, claim, complete, fail, plan, reclaim, retry, step, submit

RETRIED = plan(step("a", retry=retry(attempts=2), slug="retried"), slug="retried")
STARTED = {
    "eventId": "1", "timestampUs": 1_000_000, "workflowSlug": "legacy", "runId": "old", "category": "workflow",
    "type": "WorkflowStarted", "versionId": "v1", "workflowAttemptNumber": 1, "hasInputSchema": False, "hasInput": False,
}  # fmt: skip
SUBMITTED = {
    "eventId": "1", "timestampUs": 1_000_000, "workflowSlug": "legacy", "runId": "old", "category": "workflow",
    "type": "RunSubmitted", "versionId": "v1", "availableAtUs": 1_000_000, "priority": 0, "hasInputSchema": False,
}  # fmt: skip
STEP = {
    "eventId": "2", "timestampUs": 1_000_001, "workflowSlug": "legacy", "runId": "old", "category": "step", "stepId": "a",
    "type": "StepCompleted", "output": "1", "durationUs": 1, "attemptNumber": 1, "exportOutput": True,
}  # fmt: skip
Lines = list[dict[str, Any]]


@pytest.fixture
async def other(settings: Settings, server: TestServer) -> AsyncIterator[RedisBackend]:
    """Another namespace, of four partitions."""
    opened = RedisBackend(settings.model_copy(update={"namespace": f"{settings.namespace}b", "partitions": 4}))
    await opened.initialize()
    yield opened
    await assert_consistent(opened)
    await opened.close()


async def populate(backend: RedisBackend) -> list[str]:
    """Runs in every state: completed, skipped in part, failed and retried, cancelled, running, pending."""
    runs = [await submit(backend, DIAMOND, input='{"ä": "\\u001b"}', tags=["eu"], metadata={"n": 1}) for _ in range(3)]
    await complete(backend, runs[0], "a", "b", "c", "d")
    await complete(backend, runs[1], "a")
    await backend.skip_step(await claim(backend, runs[1], "b"), "not needed")
    await backend.cancel_run(runs[2], "no")
    runs.append(await submit(backend, RETRIED, idempotency_key="key", timeout_us=3_600_000_000, priority=-7))
    await fail(backend, await claim(backend, runs[3], "a"))
    await fail(backend, await claim(backend, runs[3], "a"))
    await backend.retry_run(runs[3], "once more")
    await claim(backend, runs[3], "a")
    await reclaim(backend)
    runs.append(await submit(backend, RETRIED))
    await fail(backend, await claim(backend, runs[4], "a"))
    await fail(backend, await claim(backend, runs[4], "a"))
    runs.append(await submit(backend, ONE, run_id="own-id"))
    return runs


def dumped(wires: Lines) -> list[str]:
    return [json.dumps(wire) for wire in wires]


async def exported(backend: RedisBackend, *run_ids: str, **only: Any) -> Lines:
    return [wire async for wire in export_runs(backend, run_ids, **only)]


def states(wires: Lines, names: Callable[[str], str] = str) -> dict[str, Any]:
    """The fold of each run and step, with run ids as `names` gives them."""
    found: dict[str, Any] = {}
    for run_id in dict.fromkeys(wire["runId"] for wire in wires):
        events = [parse_event({**wire, "runId": names(run_id)}) for wire in wires if wire["runId"] == run_id]
        found[names(run_id)] = project_run_state(events)
        for name in dict.fromkeys(event.step_id for event in events if event.category == "step"):  # type: ignore[union-attr]
            history = [event for event in events if getattr(event, "step_id", None) == name]
            found[f"{names(run_id)}|{name}"] = project_step_state(history)
    return found


def without_ids(wires: Lines) -> Lines:
    return [{**wire, "eventId": ""} for wire in wires]


@pytest.mark.parametrize("rename", [False, True])
async def test_a_round_trip_gives_equal_states(backend: RedisBackend, other: RedisBackend, rename: bool) -> None:
    runs = await populate(backend)
    wires = await exported(backend)
    assert list(dict.fromkeys(wire["runId"] for wire in wires)) == runs
    report = await import_runs(other, dumped(wires), rename)
    back = await exported(other, *report.runs)
    assert report.events == len(wires) == len(back)
    names = report.renamed
    assert (set(names) == set(runs) and set(report.runs) == set(names.values())) if rename else not names
    assert states(back) == states(wires, lambda run_id: names.get(run_id, run_id))
    if not rename:
        assert without_ids(back) == without_ids(wires)
    kept = {names.get(run_id, run_id): await backend.get_run(run_id) for run_id in runs}
    for run_id, state in kept.items():
        assert state is not None
        assert await other.get_run(run_id) == state.model_copy(update={"run_id": run_id})
    assert set(report.live) == {run_id for run_id, state in kept.items() if state and state.status in LIVE}
    assert len({other.partition(run_id) for run_id in report.runs}) > 1


async def test_a_rerun_stays_related_to_its_parent(backend: RedisBackend, other: RedisBackend) -> None:
    await backend.register_plan(DIAMOND)
    parent = await submit(backend, DIAMOND)
    await complete(backend, parent, "a", "b", "c", "d")
    child = await backend.rerun_from(parent, "c")
    await complete(backend, child, "c", "d")
    report = await import_runs(other, dumped(await exported(backend, child, parent)), rename=True)
    lineage = [wire for wire in await exported(other) if wire["type"] == "WorkflowRerunFromStep"]
    assert [wire["parentRunId"] for wire in lineage] == [report.renamed[parent]]
    alone = await import_runs(other, dumped(await exported(backend, child)))
    kept = [wire for wire in await exported(other, *alone.runs) if wire["type"] == "WorkflowRerunFromStep"]
    assert [wire["parentRunId"] for wire in kept] == [parent]


async def test_a_used_id_is_refused_before_anything_is_written(backend: RedisBackend, other: RedisBackend) -> None:
    await populate(backend)
    lines = dumped(await exported(backend))
    await import_runs(other, dumped(await exported(backend, "own-id")))
    with pytest.raises(RunExists, match="own-id"):
        await import_runs(other, lines)
    assert {wire["runId"] for wire in await exported(other)} == {"own-id"}
    assert len((await import_runs(other, lines, rename=True)).runs) == 6


async def test_an_imported_key_reserves_nothing(backend: RedisBackend, other: RedisBackend) -> None:
    first = (await backend.submit(ONE, [Submission(idempotency_key="key")]))[0].run_id
    await import_runs(other, dumped(await exported(backend, first)))
    state = await other.get_run(first)
    assert state is not None
    assert state.idempotency_key == "key"
    assert (await other.submit(ONE, [Submission(idempotency_key="key")]))[0].is_new


async def test_export_chooses(backend: RedisBackend) -> None:
    runs = await populate(backend)

    async def chosen(*run_ids: str, **only: Any) -> list[str]:
        return list(dict.fromkeys(wire["runId"] for wire in await exported(backend, *run_ids, **only)))

    assert await chosen(runs[2], runs[0], runs[2]) == [runs[2], runs[0]]
    assert await chosen(workflow_slug="retried") == runs[3:5]
    assert await chosen(statuses=["cancelled", "failed"]) == [runs[2], runs[4]]
    assert await chosen(*runs, workflow_slug="flow", statuses=["completed"]) == [runs[0]]
    with pytest.raises(RunNotFound, match="nosuch"):
        await chosen(runs[0], "nosuch")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is invalid"),
        ("[]", "is no JSON object"),
        ('{"type": "StepCompleted", "category": "step"}', "eventId: Field required"),
        (json.dumps({**STEP, "durationUs": "x"}), "durationUs"),
        (json.dumps({**STEP, "runId": "new"}), "type: run 'new' must begin with RunSubmitted or WorkflowStarted"),
        (json.dumps({**STEP, "workflowSlug": "b"}), "workflowSlug: run 'old' began in 'legacy'"),
        (json.dumps({**STEP, "stepId": "a|b"}), "step_id='a|b' is not allowed"),
        (json.dumps({**STEP, "output": ""}), "output: is not JSON text"),
        (json.dumps({**STEP, "output": '"\ud800"'}), "output: is not JSON text"),
        (json.dumps({**STEP, "timestampUs": 2**60}), "timestampUs: is not from 0"),
        (json.dumps({**STEP, "timestampUs": -1}), "timestampUs: is not from 0"),
        (json.dumps({**STEP, "attemptNumber": 2**30}), "attemptNumber: is not from 0"),
        (json.dumps({**STARTED, "runId": "a b"}), "run_id='a b' is not allowed"),
        (json.dumps({**SUBMITTED, "priority": 1000}), "priority=1000 is not allowed"),
        (json.dumps({**SUBMITTED, "tags": ["a b"]}), "tags='a b' is not allowed"),
        (json.dumps({**SUBMITTED, "metadata": {"n": 2**70}}), "line 2 is invalid"),
        (json.dumps({**SUBMITTED, "metadata": {"n": float("nan")}}), "NaN is no number"),
        ("[" * 100_000, "line 2 is invalid"),
        (b"\xff", "line 2 is invalid"),
        (json.dumps({**STARTED, "type": "Later", "stepId": "a"}), "stepId: belongs to events of category step"),
    ],
)  # fmt: skip
async def test_a_wrong_line_is_named_and_nothing_is_written(backend: RedisBackend, line: Any, message: str) -> None:
    with pytest.raises(InvalidInput) as told:
        await import_runs(backend, [json.dumps(STARTED), line])
    assert message in str(told.value)
    assert "line 2 " in str(told.value)
    assert await exported(backend) == []


async def test_events_of_other_tools(backend: RedisBackend) -> None:
    """Runs interleaved, blank lines, a type that is not known here, times that go back."""
    later = {**STARTED, "eventId": "4", "type": "Later", "anything": [1, {"a": None}]}
    second = {**STARTED, "runId": "old-2"}
    end = {
        **STARTED, "type": "WorkflowCompleted", "output": "{}", "durationUs": 5, "totalSteps": 1, "timestampUs": 1_000_009,
    }  # fmt: skip
    early = {**STEP, "stepId": "b", "timestampUs": 999_999}
    lines = [json.dumps(wire) for wire in (STARTED, second, later, STEP, early, end)]
    report = await import_runs(backend, [lines[0], "", *(line.encode() + b"\r\n" for line in lines[1:])])
    assert (report.runs, report.events, report.live) == (("old", "old-2"), 6, ("old-2",))
    assert [wire["type"] for wire in await exported(backend, "old")] == [
        "WorkflowStarted", "Later", "StepCompleted", "StepCompleted", "WorkflowCompleted",
    ]  # fmt: skip
    state = await backend.get_run("old")
    assert state is not None
    assert (state.workflow_slug, state.status) == ("legacy", "completed")


async def test_a_long_history(backend: RedisBackend) -> None:
    logs = [{**STEP, "type": "LogEntry", "stream": "stdout", "message": "x" * 80} for _ in range(20_000)]
    report = await import_runs(backend, dumped([STARTED, STEP, *logs]))
    assert report.events == 20_002


def test_export_and_import(rf: Call, registered: None, tmp_path: Path) -> None:
    ids = [rf("submit", "shop", '{"cents": 5}', "--tag", "x").out.strip() for _ in range(3)]
    rf("cancel", ids[0], "--reason", "a \x1b[31mreason")
    done = rf("export")
    assert done.code == 0
    assert "\x1b" not in done.out
    wires = [json.loads(line) for line in done.out.splitlines()]
    assert all(list(wire)[:2] == list(wires[0])[:2] for wire in wires)
    carried = [wire.pop("plan") for wire in wires if "plan" in wire]
    assert [plan["slug"] for plan in carried] == ["shop"]  # once, though there are three runs of it
    assert wires == [parse_event(wire).to_wire() for wire in wires]
    assert list(dict.fromkeys(wire["runId"] for wire in wires)) == ids
    only = rf("export", "--status", "cancelled", "--workflow", "shop").out.splitlines()
    assert {json.loads(line)["runId"] for line in only} == {ids[0]}
    (tmp_path / "all.jsonl").write_text(done.out)
    into = ("import", "all.jsonl", "--namespace", "tother" + ids[0][:5])
    told = rf(*into)
    assert told.code == 0
    assert told.out == f"3 runs with {len(wires)} events imported\n2 runs had not ended and will go on here\n"
    assert told.err == ""
    bare = "".join(json.dumps(wire) + "\n" for wire in wires)
    history = rf("import", "--namespace", "tbare" + ids[0][:5], stdin=bare)
    assert history.out == f"3 runs with {len(wires)} events imported\n"
    assert history.err.startswith("2 runs had not ended but came in as history only, since neither the lines nor this ")
    assert rf("verify", "--namespace", "tbare" + ids[0][:5]).code == 0
    refused = rf(*into)
    assert refused.code == 2
    assert "is in use" in refused.error
    renamed = rf("import", "--rename", "--json", stdin=done.out).json
    assert set(renamed["renamed"]) == set(ids)
    assert (len(renamed["runs"]), len(renamed["live"]), renamed["historyOnly"]) == (3, 2, [])
    assert rf("verify").code == 0


def test_import_of_nothing_and_of_what_is_not_there(rf: Call) -> None:
    assert rf("import", stdin="").out == "0 runs with 0 events imported\n"
    missing = rf("import", "nosuch.jsonl")
    assert (missing.code, missing.error) == (2, "Error: cannot read nosuch.jsonl: No such file or directory")
    wrong = rf("import", stdin="\n{\x1b")
    assert wrong.code == 2
    assert "line 2 is invalid" in wrong.error
    assert "\x1b" not in wrong.err
    assert rf("export").out == ""
    assert rf("export", "nosuch").code == 1
    assert rf("export", "no such").code == 2
    assert rf("export", "--workflow", "no such").code == 2


async def test_a_file_with_a_wrong_line_leaves_nothing_open(rf: Call, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(json.dumps(STARTED) + "\nno json\n")
    done = await asyncio.to_thread(rf, "import", "bad.jsonl")
    assert "line 2 is invalid" in done.error
    assert (await asyncio.to_thread(rf, "export")).out == ""
