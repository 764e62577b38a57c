"""Pure parts: forms made from schemas, layered drawings, charts."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field, TypeAdapter

from redisflow.model.errors import InvalidInput
from redisflow.web.charts import bars, edges_of, spread
from redisflow.web.forms import fields_of, read_fields
from redisflow.web.graph import HEIGHT, WIDTH, draw


class Address(BaseModel):
    street: str
    zip: int = Field(ge=0)


class Order(BaseModel):
    name: str = Field(description="who")
    cents: int = Field(ge=1, le=10)
    rate: float = 0.5
    express: bool = False
    size: Any = Field("M", json_schema_extra={"enum": ["S", "M"]})
    note: str | None = None
    ship_to: Address
    tags: list[str] = []
    odd: int | str = 1


SCHEMA = TypeAdapter(Order).json_schema()


def test_a_schema_becomes_fields() -> None:
    fields = fields_of(SCHEMA)
    assert fields is not None
    assert [(field.name, field.kind, field.required) for field in fields] == [
        ("name", "text", True), ("cents", "integer", True), ("rate", "number", False), ("express", "boolean", False),
        ("size", "choice", False), ("note", "text", False), ("ship_to.street", "text", True), ("ship_to.zip", "integer", True),
        ("tags", "json", False), ("odd", "json", False),
    ]  # fmt: skip
    by_name = {field.name: field for field in fields}
    assert (by_name["cents"].least, by_name["cents"].most, by_name["name"].help) == (1, 10, "who")
    assert (by_name["rate"].value, by_name["size"].value, by_name["note"].value) == ("0.5", '"M"', "")


def test_what_was_typed_becomes_an_input_that_fits() -> None:
    fields = fields_of(SCHEMA)
    assert fields is not None
    typed = {
        "name": "a.b",
        "cents": "3",
        "express": "true",
        "ship_to.street": "x",
        "ship_to.zip": "9",
        "tags": '["t"]',
        "odd": '"o"',
    }
    found = read_fields(fields, typed)
    assert found == {
        "name": "a.b", "cents": 3, "express": True, "ship_to": {"street": "x", "zip": 9}, "tags": ["t"], "odd": "o"
    }  # fmt: skip
    Order.model_validate(found)
    with pytest.raises(InvalidInput) as refused:
        read_fields(fields, {**typed, "cents": "many", "tags": "["})
    assert [path for path, _ in refused.value.problems] == ["cents", "tags"]


@pytest.mark.parametrize("schema", [None, {}, {"type": "string"}, {"anyOf": []}, {"$ref": "#/nowhere"}, {"$ref": "#"}])
def test_other_schemas_are_one_field_of_json(schema: Any) -> None:
    assert fields_of(schema) is None


@pytest.mark.parametrize(
    "edges",
    [
        {"a": []},
        {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["a", "d"]},
        {f"s{n}": [f"s{m}" for m in range(max(0, n - 3), n)] for n in range(40)},
        {"root": [], **{f"m{n}": ["root"] for n in range(60)}, "last": [f"m{n}" for n in range(60)]},
        {"lost": ["unknown"]},
    ],
)
def test_steps_stand_right_of_what_they_need_and_never_on_each_other(edges: dict[str, list[str]]) -> None:
    drawing = draw(edges)
    assert drawing is not None
    at = {node.id: node for node in drawing.nodes}
    assert at.keys() == edges.keys()
    for step, needs in edges.items():
        assert all(at[need].x + WIDTH < at[step].x for need in needs if need in at)
        assert 0 <= at[step].x <= drawing.width - WIDTH
        assert 0 <= at[step].y <= drawing.height - HEIGHT
    boxes = list(at.values())
    for index, one in enumerate(boxes):
        assert not any(one.x == other.x and abs(one.y - other.y) < HEIGHT for other in boxes[index + 1 :])
    assert {(a, b) for a, b, _ in drawing.edges} == {(n, s) for s, needs in edges.items() for n in needs if n in at}


def test_nothing_and_too_much_are_not_drawn() -> None:
    assert draw({}) is None
    assert draw({f"s{n}": [] for n in range(301)}) is None


def test_times_fall_into_the_parts_of_a_window() -> None:
    edges = edges_of(0, 100, 4)
    assert edges == [0, 25, 50, 75, 101]
    assert spread([0, 24, 25, 99, 100, 101, -1], edges) == [2, 1, 0, 2]
    chart = bars([2, 1, 0, 2], edges, width=400, height=100)
    assert [(bar.height, bar.y) for bar in chart.bars] == [(100, 0), (50, 50), (0, 100), (100, 0)]
