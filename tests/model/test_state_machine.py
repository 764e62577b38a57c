"""The table of transitions is whole and consistent, and the states take what the wire form takes."""

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from redisflow.model import events, states
from redisflow.model.events import EVENT_TYPES
from redisflow.model.states import (
    RUN_TERMINAL,
    STEP_TERMINAL,
    TRANSITIONS,
    VERBS,
    RunStatus,
    StepStatus,
    mermaid,
)

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "states.schema.json").read_text())


def test_every_row_is_spelled_right_and_stands_once() -> None:
    known = {"step": get_args(StepStatus), "run": get_args(RunStatus)}
    for row in TRANSITIONS:
        assert row.by in VERBS
        assert row.target in known[row.subject]
        assert row.source is None or row.source in known[row.subject]
        assert set(row.events) <= set(EVENT_TYPES)
    assert len({row[:4] for row in TRANSITIONS}) == len(TRANSITIONS)
    assert {row.by for row in TRANSITIONS} == set(VERBS)


def test_every_status_but_claimed_is_reached() -> None:
    for subject, known in (("step", get_args(StepStatus)), ("run", get_args(RunStatus))):
        reached = {row.target for row in TRANSITIONS if row.subject == subject}
        assert reached == set(known) - {"claimed"}


def test_only_a_retry_leads_on_from_an_end() -> None:
    for row in TRANSITIONS:
        ends = STEP_TERMINAL if row.subject == "step" else RUN_TERMINAL
        if row.source in ends:
            assert (row.source, row.by) == ("failed", "retry")


def test_events_by_verb() -> None:
    assert states.events_by("submit") == ("RunSubmitted", "StepScheduled")
    assert states.events_by("fail") == ("StepFailed", "StepRetrying", "StepScheduled", "WorkflowFailed")
    assert states.events_by("cancel") == ("WorkflowCancelled",)


def test_the_diagram_has_an_edge_for_every_row() -> None:
    for subject in ("step", "run"):
        lines = mermaid(subject).splitlines()
        assert lines[0] == "stateDiagram-v2"
        assert len(lines) == len(set(lines))
        for row in TRANSITIONS:
            if row.subject == subject:
                edge = f"    {row.source or '[*]'} --> {row.target}: "
                assert any(line.startswith(edge) and row.by in line for line in lines)
    assert "    running --> scheduled: fail, reclaim, release, retry" in mermaid("step")


@pytest.mark.parametrize("name", sorted(SCHEMA))
def test_fields_are_those_of_the_schema(name: str) -> None:
    model: type[BaseModel] = getattr(
        events if name == "ResourceSnapshot" else states, {"LogEntry": "StepLog"}.get(name, name)
    )
    assert {info.alias for info in model.model_fields.values()} == set(SCHEMA[name]["properties"])
    required = {info.alias for info in model.model_fields.values() if info.is_required()}
    assert required == set(SCHEMA[name].get("required", []))


def test_a_registration_round_trips() -> None:
    wire = {
        "slug": "checkout",
        "name": "Checkout",
        "inputSchemaJSON": {"type": "object", "default": None},
        "steps": [{"id": "charge", "name": "charge", "dependencies": ["reserve"], "exportOutput": True}],
    }
    assert states.WorkflowRegistration.model_validate(wire).to_wire() == wire
