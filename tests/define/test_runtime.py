"""What executors use: `bind`, the checks of input and output, pickling, resources."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from redisflow.define import Fatal, From, Resource, RetryAfter, Skip, StepContext, Use, Workflow, resource
from redisflow.model.errors import DefinitionError, InvalidArgument, InvalidInput


class Item(BaseModel):
    cents: int


class Order(BaseModel):
    id: str
    items: list[Item] = []
    at: datetime | None = None


shop = Workflow("shop", input=Order, output=Item)


@resource
def tool() -> Iterator[str]:
    yield "hammer"


@shop.step
def root() -> int:
    return 1


@shop.step
async def price(order: Order) -> Item:
    return order.items[0]


@shop.step(export=True)
async def last(
    price: Item,
    raw: Annotated[Any, From("price")],
    t: Annotated[str, Use(tool)],
    ctx: StepContext,
    root: int = 7,
) -> Item:
    return price


def test_a_decorated_function_is_itself() -> None:
    assert price.__name__ == "price"
    assert pickle.loads(pickle.dumps(price)) is price
    assert shop.steps["price"].fn is price
    assert shop.steps["price"].is_async
    assert not shop.steps["root"].is_async


def test_bind_makes_the_arguments() -> None:
    assert shop.steps["root"].bind(None, {}, None, {}) == {}
    assert shop.steps["price"].bind(b'{"id": "1"}', {}, None, {}) == {"order": Order(id="1")}
    ctx: Any = object()
    bound = shop.steps["last"].bind(None, {"price": '{"cents": 3}', "root": None}, ctx, {tool: "saw"})
    assert bound == {"price": Item(cents=3), "raw": {"cents": 3}, "t": "saw", "ctx": ctx}
    assert shop.steps["last"].resources == (tool,)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"id": "1", "items": [{"cents": "x"}]}', "items.0.cents"),
        ("{}", "id"),
        ("{", "$"),
        (None, "$"),
    ],
)
def test_bind_tells_where_the_input_is_wrong(text: str | None, problem: str) -> None:
    with pytest.raises(InvalidInput, match="input of step 'price' of workflow 'shop' is invalid") as caught:
        shop.steps["price"].bind(text, {}, None, {})
    assert [path for path, _ in caught.value.problems] == [problem]


def test_bind_tells_which_output_is_wrong() -> None:
    with pytest.raises(InvalidInput, match=r"output of step 'price' for step 'last' of workflow 'shop' .* cents: "):
        shop.steps["last"].bind(None, {"price": "{}"}, None, {tool: ""})
    with pytest.raises(InvalidInput, match=r"\$: missing, parameter 'price' needs it"):
        shop.steps["last"].bind(None, {}, None, {tool: ""})


def test_an_input_that_may_be_missing() -> None:
    flow = Workflow("flow", input=int | None)

    @flow.step
    def nullable(n: int | None) -> None: ...

    @flow.step
    def defaulted(n: int | None = 5) -> None: ...

    assert flow.steps["nullable"].bind(None, {}, None, {}) == {"n": None}
    assert flow.steps["defaulted"].bind(None, {}, None, {}) == {}
    assert flow.steps["defaulted"].bind("null", {}, None, {}) == {"n": None}
    assert flow.validate_input() is None


def test_an_undeclared_input_is_read_as_it_is() -> None:
    flow = Workflow("flow")

    @flow.step
    def work(input) -> None: ...  # type: ignore[no-untyped-def]

    assert flow.steps["work"].bind('{"a": [1]}', {}, None, {}) == {"input": {"a": [1]}}
    assert flow.validate_input({"a": 1}) == {"a": 1}
    with pytest.raises(InvalidInput, match="the workflow needs an input"):
        flow.validate_input()
    with pytest.raises(InvalidInput, match=r"input of workflow 'flow' is invalid: \$"):
        flow.check_input_json("{")


def test_validate_input_gives_what_can_be_encoded() -> None:
    order = Order(id="1", at=datetime(2026, 1, 2))
    assert shop.validate_input(order) == {"id": "1", "items": [], "at": "2026-01-02T00:00:00"}
    as_dict: Any = {"id": "1"}
    assert shop.validate_input(as_dict) == {"id": "1", "items": [], "at": None}
    wrong: Any = {"id": 1, "items": [{}]}
    with pytest.raises(InvalidInput) as caught:
        shop.validate_input(wrong)
    assert [path for path, _ in caught.value.problems] == ["id", "items.0.cents"]
    shop.check_input_json('{"id": "1"}')
    with pytest.raises(InvalidInput, match="id: Field required"):
        shop.check_input_json("{}")
    with pytest.raises(InvalidInput, match="missing"):
        shop.check_input_json(None)


def test_the_output_is_that_of_the_exported_steps() -> None:
    assert shop.output_of({"last": '{"cents": 1}', "price": "{}"}) == Item(cents=1)
    skipped: Any = shop.output_of({"last": None})
    assert skipped is None
    with pytest.raises(InvalidInput, match="output of workflow 'shop' is invalid: cents"):
        shop.output_of({"last": "{}"})

    class Both(BaseModel):
        a: int
        b: int = 0

    flow = Workflow("flow", output=Both)
    plain = Workflow("plain")
    for target in (flow, plain):
        for name in ("a", "b"):
            target.step(name=name, export=True)(lambda: 1)
    assert flow.output_of({"a": "1", "b": b"2"}) == Both(a=1, b=2)
    assert flow.output_of({"a": "1"}) == Both(a=1)
    assert plain.output_of({"a": "1", "b": None}) == {"a": 1}
    none = Workflow("none")
    none.step(name="x")(lambda: 1)
    assert none.output_of({"x": "1"}) is None


def test_control_flow_can_be_pickled() -> None:
    skip = pickle.loads(pickle.dumps(Skip("why", {"n": 1})))
    assert (skip.reason, skip.metadata, str(skip)) == ("why", {"n": 1}, "why")
    later = pickle.loads(pickle.dumps(RetryAfter("30s", "busy")))
    assert (later.delay_us, later.message, str(later)) == (30_000_000, "busy", "busy")
    assert str(RetryAfter(2)) == "retry after 2"
    assert str(pickle.loads(pickle.dumps(Fatal("no")))) == "no"
    with pytest.raises(InvalidArgument, match="delay='soon'"):
        RetryAfter("soon")


async def test_resources_open_and_close() -> None:
    log: list[str] = []

    @resource
    async def streamed() -> AsyncIterator[int]:
        yield 1
        log.append("streamed")

    @resource
    def yielded() -> Iterator[int]:
        yield 2
        log.append("yielded")

    @resource
    async def made() -> int:
        return 3

    many: list[Resource[int]] = [streamed, yielded, made]
    for expected, each in enumerate(many, start=1):
        async with each.open() as value:
            assert value == expected
            assert each.name not in log
    assert log == ["streamed", "yielded"]
    assert repr(streamed) == "<Resource streamed>"


def test_what_cannot_be_a_resource() -> None:
    async def needs(url: str) -> int:
        return 1

    with pytest.raises(DefinitionError, match=r"resource 'needs' has parameters \(url\).*read settings inside"):
        resource(needs)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="resource 'int' must be a generator that yields"):
        resource(int)  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="decorate the function with @resource first"):
        Use(needs)  # type: ignore[arg-type]
