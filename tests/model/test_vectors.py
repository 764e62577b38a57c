"""The worked cases, each a test, and the checker that others run over cases of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from redisflow.model.events import parse_event, to_wire
from redisflow.model.projections import project_runs, project_steps
from tests import check_vectors

DATA = Path(__file__).parents[1] / "data"
CASES = check_vectors.read_cases(DATA / "projections.jsonl")
EVENTS = json.loads((DATA / "events.schema.json").read_text())
STATES = json.loads((DATA / "states.schema.json").read_text())
EITHER = {kind: Draft202012Validator(schema) for kind, schema in EVENTS.items()}
STATE = {name: Draft202012Validator(schema) for name, schema in STATES.items()}

each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])


@each_case
@pytest.mark.parametrize("part", check_vectors.PARTS)
def test_case(case: dict[str, Any], part: str) -> None:
    assert check_vectors.check_case(case, (part,)) == []


@each_case
def test_events_fit_the_schema_and_round_trip(case: dict[str, Any]) -> None:
    for wire in case["events"]:
        EITHER["StepEvent" if wire["category"] == "step" else "WorkflowEvent"].validate(wire)
        again = to_wire(parse_event(wire))
        assert again == wire
        assert not any(isinstance(value, float) for value in again.values())


@each_case
def test_states_fit_the_schema(case: dict[str, Any]) -> None:
    events = [parse_event(event) for event in case["events"]]
    for step in project_steps(events).values():
        STATE["StepState"].validate(step.state.to_wire())
        STATE["StepRecord"].validate(step.record.to_wire())
        for log in step.logs:
            STATE["LogEntry"].validate(log.to_wire())
    for run in project_runs(events).values():
        assert run.state is not None
        STATE["RunState"].validate(run.state.to_wire())


def test_mismatches_name_the_field() -> None:
    expected = {"a": [{"b": 1, "n": None}], "stateChanges": [{"message": "x", "status": "s"}], "t": True}
    assert not list(check_vectors.mismatches(expected, expected))
    actual = {"a": [{"b": 2}, 3], "stateChanges": [{"message": "y", "status": "t"}], "t": 1}
    assert list(check_vectors.mismatches(expected, actual)) == [
        "a: expected 1 items, got 2",
        "a[0].b: expected 1, got 2",
        'stateChanges[0].status: expected "s", got "t"',
        "t: expected true, got 1",
    ]


@pytest.mark.parametrize(("part", "failed"), [("states", 1), ("analytics", 0)])
def test_the_checker_runs_from_anywhere(tmp_path: Path, part: str, failed: int) -> None:
    broken = json.loads(json.dumps(CASES[0]))
    broken["expected"]["runs"][0]["state"]["priority"] = 99
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps(broken) + "\n" + json.dumps(CASES[1]) + "\n")
    command = [sys.executable, check_vectors.__file__, str(cases), "--part", part]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"{2 - failed} passed, {failed} failed"
    assert done.returncode == failed
    assert ("runs[0].state.priority: expected 99" in done.stdout) == bool(failed)
