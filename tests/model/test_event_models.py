"""Events: read what the wire form allows, refuse what it does not, write back what was read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter, ValidationError

from redisflow.model.errors import InvalidInput
from redisflow.model.events import (
    EVENT_TYPES,
    STEP_EVENT_TYPES,
    WORKFLOW_EVENT_TYPES,
    Event,
    StepStarted,
    UnknownEvent,
    parse_event,
    to_wire,
)
from tests.strategies import event_of

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "events.schema.json").read_text())
SCHEMAS: dict[str, dict[str, Any]] = {
    member["properties"]["type"]["const"]: member for union in SCHEMA.values() for member in union["anyOf"]
}
VALIDATORS = {name: Draft202012Validator(schema) for name, schema in SCHEMAS.items()}
ANY_EVENT: TypeAdapter[Event] = TypeAdapter(Event)

STARTED: dict[str, Any] = {
    "eventId": "17",
    "timestampUs": 1_700_000_000_000_000,
    "workflowSlug": "checkout",
    "runId": "run-1",
    "category": "step",
    "stepId": "charge",
    "type": "StepStarted",
    "workerId": "w1",
    "dependencies": ["reserve"],
    "attemptNumber": 1,
}


def test_all_types_of_the_schema_have_a_model() -> None:
    assert set(EVENT_TYPES) == set(SCHEMAS)
    assert (len(STEP_EVENT_TYPES), len(WORKFLOW_EVENT_TYPES)) == (11, 9)


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
def test_fields_and_required_are_those_of_the_schema(name: str) -> None:
    fields = {info.alias: info for info in EVENT_TYPES[name].model_fields.values()}
    schema = SCHEMAS[name]
    assert set(fields) == set(schema["properties"])
    required = {alias for alias, info in fields.items() if info.is_required()} | {"type", "category"}
    assert required == set(schema["required"])


@pytest.mark.parametrize("name", sorted(EVENT_TYPES))
@settings(deadline=None)
@given(data=st.data())
def test_any_event_fits_the_schema_and_round_trips(name: str, data: st.DataObject) -> None:
    event = data.draw(event_of(EVENT_TYPES[name]))
    wire = to_wire(event)
    VALIDATORS[name].validate(wire)
    assert parse_event(json.loads(json.dumps(wire))) == event
    assert ANY_EVENT.validate_python(wire) == event


def test_nested_nulls_of_metadata_survive() -> None:
    wire = {
        **{key: STARTED[key] for key in ("eventId", "timestampUs", "workflowSlug", "runId")},
        "category": "workflow",
        "type": "RunSubmitted",
        "versionId": "v",
        "availableAtUs": 0,
        "priority": 0,
        "hasInputSchema": False,
        "metadata": {"a": None, "b": {"c": [None]}},
    }
    assert to_wire(parse_event(wire)) == wire


def test_unknown_fields_are_dropped_and_null_is_absent() -> None:
    event = parse_event({**STARTED, "lease": 4, "slotIndex": None})
    assert to_wire(event) == STARTED


def test_integral_floats_are_integers() -> None:
    event = parse_event({**STARTED, "timestampUs": 5.0, "attemptNumber": 2.0})
    assert isinstance(event, StepStarted)
    assert (event.timestamp_us, type(event.timestamp_us), event.attempt_number) == (5, int, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timestampUs", 1.5),
        ("timestampUs", "1"),
        ("timestampUs", True),
        ("timestampUs", float("inf")),
        ("eventId", "x1"),
        ("eventId", "١"),
        ("eventId", "1\n"),
        ("eventId", ""),
        ("eventId", 1),
        ("attemptNumber", 0),
        ("attemptNumber", 2**53),
        ("slotIndex", -1),
        ("category", "workflow"),
        ("category", None),
        ("workerId", None),
        ("dependencies", "reserve"),
        ("dependencies", [1]),
        ("stepId", None),
    ],
)
def test_what_the_schema_forbids_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_event({**STARTED, field: value})
    assert field in caught.value.problems[0][0]


@pytest.mark.parametrize("field", sorted(set(STARTED) - {"type"}))
def test_missing_fields_are_refused_by_name(field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        parse_event({key: value for key, value in STARTED.items() if key != field})


def test_an_unknown_type_is_kept_as_it_is() -> None:
    wire = {**STARTED, "type": "x.billing.Invoiced", "cents": {"a": None}}
    event = parse_event(wire)
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.run_id, event.step_id) == ("x.billing.Invoiced", "run-1", "charge")
    assert to_wire(event) == wire


@pytest.mark.parametrize("kind", [None, 3, ["StepStarted"]])
def test_an_event_needs_a_type(kind: object) -> None:
    with pytest.raises(InvalidInput, match="type"):
        parse_event({**STARTED, "type": kind})


def test_events_are_frozen() -> None:
    event = parse_event(STARTED)
    with pytest.raises(ValidationError, match="frozen"):
        event.run_id = "other"  # type: ignore[misc]
