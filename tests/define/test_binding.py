"""Where a step's parameters come from, and how each mistake is told.

Annotations are text here (see the import below), and their classes local to the tests where it matters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from redisflow.define import From, StepContext, Use, Workflow, resource
from redisflow.model.errors import DefinitionError

if TYPE_CHECKING:
    from decimal import Decimal


class Order(BaseModel):
    id: str


class Receipt(BaseModel):
    total: int


class Signed(Receipt):
    by: str


class Pool: ...


def other() -> None: ...
def twice() -> None: ...


@resource
async def pool() -> AsyncIterator[dict[str, int]]:
    yield {}


def sources(flow: Workflow[Any, Any], step: str) -> dict[str, str]:
    return {b.parameter: b.step or b.source for b in flow.steps[step].bindings}


def test_every_source_of_a_parameter() -> None:
    flow = Workflow("flow", input=Order)

    @flow.step
    def reserve(order: Order) -> int:
        return 1

    @flow.step(name="pay-it")
    def pay(order: Order) -> Receipt: ...  # type: ignore[empty-body]

    @flow.step
    def all_of_them(
        order: Order,
        reserve: int,
        paid: Annotated[Receipt, From(pay)],
        again: Annotated[Receipt, From("pay-it")],
        db: Annotated[dict[str, int], Use(pool)],
        ctx: StepContext,
        context: StepContext,
        own: int = 3,
    ) -> None: ...

    assert sources(flow, "all_of_them") == {
        "order": "input",
        "reserve": "reserve",
        "paid": "pay-it",
        "again": "pay-it",
        "db": "resource",
        "ctx": "context",
        "context": "context",
        "own": "default",
    }
    assert flow.resources == (pool,)
    assert flow.steps["all_of_them"].required_steps == ("reserve", "pay-it")


def test_the_input_by_name_by_type_and_by_its_name_elsewhere() -> None:
    flow = Workflow("flow", input=Order)

    @flow.step
    def first(order: Order | None = None) -> None: ...

    @flow.step
    def second(order) -> None: ...  # type: ignore[no-untyped-def]

    assert sources(flow, "first") == {"order": "input"}
    assert sources(flow, "second") == {"order": "input"}

    bare = Workflow("bare")

    @bare.step
    def work(input: int) -> None: ...

    assert sources(bare, "work") == {"input": "input"}


def test_a_plain_default_is_no_input() -> None:
    flow = Workflow("flow", input=str)

    @flow.step
    def work(name: str, sep: str = ",") -> None: ...

    assert sources(flow, "work") == {"name": "input", "sep": "default"}


def test_classes_of_the_declaring_function() -> None:
    class Local(BaseModel):
        n: int

    @dataclasses.dataclass
    class Outer:
        inner: Local

    flow = Workflow("flow", input=Outer)

    @flow.step
    def first(outer: Outer) -> Local:
        return outer.inner

    @flow.step
    def second(first: Local) -> None: ...

    bound = flow.steps["first"].bind('{"inner": {"n": 1}}', {}, None, {})
    assert bound == {"outer": Outer(Local(n=1))}
    assert flow.steps["second"].bind(None, {"first": '{"n": 2}'}, None, {}) == {"first": Local(n=2)}


def flow_with_steps(declared: Any = None) -> Workflow[Any, Any]:
    flow: Workflow[Any, Any] = Workflow("flow", input=declared)

    @flow.step
    def charge() -> Receipt: ...  # type: ignore[empty-body]

    @flow.step
    def number() -> int:
        return 1

    return flow


def refused(flow: Workflow[Any, Any], fn: Any, **options: Any) -> str:
    before = list(flow.steps)
    with pytest.raises(DefinitionError) as caught:
        flow.step(**options)(fn)
    assert list(flow.steps) == before
    message = str(caught.value)
    assert "of workflow 'flow': " in message
    return message


def test_a_typo_is_told_with_the_right_name() -> None:
    def confirm(chrage: Receipt) -> None: ...

    message = refused(flow_with_steps(), confirm)
    assert message == (
        "step 'confirm' of workflow 'flow': parameter 'chrage' is neither a step (above: charge, number) nor "
        "the input. Did you mean 'charge'? Name it like a step declared above; name it 'input' to take the "
        "input; "
        "mark it Annotated[..., Use(resource)] or Annotated[..., From(step)], or give it a default"
    )


def test_a_typo_never_binds_the_input() -> None:
    def confirm(nubmer: int) -> None: ...

    message = refused(flow_with_steps(int), confirm)
    assert "parameter 'nubmer' may be the input or a misspelt 'number'. Name it 'number' for" in message

    def another(something: Receipt) -> None: ...

    assert "annotate it with int to take the input" in refused(flow_with_steps(int), another)


def test_the_input_has_one_name() -> None:
    flow = Workflow("flow", input=Order)

    @flow.step
    def first(order: Order) -> None: ...

    def second(purchase: Order) -> None: ...

    message = refused(flow, second)
    assert "parameter 'purchase' takes the input, which is 'order' elsewhere. The input has one name" in message
    assert "rename it to 'order'" in message

    def both(order: Order, other: Order) -> None: ...

    assert "parameter 'other' takes the input" in refused(flow, both)


def test_parameters_that_cannot_be_bound() -> None:
    def star(*args: int) -> None: ...
    def stars(**kwargs: int) -> None: ...
    def positional(charge: Receipt, /) -> None: ...

    flow = flow_with_steps()
    assert "step 'star' of workflow 'flow': *args: " in refused(flow, star)
    assert "name each parameter" in refused(flow, stars)
    assert "'charge' is positional-only: remove the '/'" in refused(flow, positional)


def test_a_step_that_is_not_above() -> None:
    def by_function(x: Annotated[int, From(other)]) -> None: ...
    def by_id(x: Annotated[int, From("chagre")]) -> None: ...
    def fine() -> None: ...

    flow = flow_with_steps()
    assert "parameter 'x': 'other' is no step declared above" in refused(flow, by_function)
    assert "Did you mean 'charge'? Declare it above" in refused(flow, by_id)
    assert "after='chagre': 'chagre' is no step declared above" in refused(flow, fine, after=["chagre"])
    assert "after='charge' is not a list of steps: write after=[step]" in refused(flow, fine, after="charge")


def test_a_function_of_several_steps_is_named_by_id() -> None:
    flow = flow_with_steps()

    def reader(x: Annotated[Any, From(twice)]) -> None: ...

    flow.step(name="one")(twice)
    flow.step(name="two")(twice)
    assert "'twice' is the function of steps ['one', 'two']: name one of them" in refused(flow, reader)


def test_names_of_steps() -> None:
    flow = Workflow("flow", input=Order)

    @flow.step
    def first(order: Order, later: int = 0) -> None: ...

    def ctx() -> None: ...
    def input() -> None: ...
    def order() -> None: ...
    def later() -> int:
        return 1

    assert "parameters named 'ctx' mean the context: rename the step" in refused(flow, ctx)
    assert "mean the input" in refused(flow, input)
    assert "parameters named 'order' mean the input" in refused(flow, order)
    assert "pass another, step(name=...)" in refused(flow, later, name="first")
    assert "declare 'later' above 'first' to feed it, or rename" in refused(flow, later)
    assert "name 'a.b' is not allowed: pass name= with letters, digits, '_' and '-', 1 to 64" in refused(
        flow, later, name="a.b"
    )
    assert "name '<lambda>' is not allowed" in refused(flow, lambda: 1)


def test_what_cannot_be_a_step() -> None:
    flow = Workflow("flow")

    def generator() -> Any:
        yield 1

    async def stream() -> Any:
        yield 1

    def plain() -> None: ...
    async def slow() -> None: ...

    assert "collect into a list instead of using `yield`" in refused(flow, generator)
    assert "collect into a list" in refused(flow, stream)
    assert "is not a function: decorate a `def`" in refused(flow, Order)
    assert "step '' of workflow 'flow': 3 is not a function" in refused(flow, 3)
    message = refused(flow, plain, timeout="30s")
    assert "timeout='30s' on a plain function, which runs in a thread that can't be killed: use `async def`" in message
    assert "pass isolate=True to run it in a process of its own" in message
    assert "timeout='soon': " in refused(flow, slow, timeout="soon")
    assert "leaves no time" in refused(flow, slow, timeout=0)
    assert "queue 'a/b' is not allowed" in refused(flow, slow, queue="a/b")


def test_an_isolated_plain_function_may_have_a_timeout() -> None:
    flow = Workflow("flow")

    @flow.step(isolate=True, timeout="30s")
    def plain() -> None: ...

    assert flow.steps["plain"].isolate
    assert flow.plan.steps[0].timeout_us == 30_000_000


def test_types_that_are_no_json() -> None:
    flow = flow_with_steps()

    def work(input: Pool) -> None: ...

    message = refused(flow, work)
    assert "parameter 'input' of type Pool cannot be read from JSON" in message
    assert "Annotated[..., Use(resource)]" in message
    with pytest.raises(
        DefinitionError, match=r"workflow 'w': input=<class .*Pool'> is no type with a JSON form .*: use a"
    ):
        Workflow("w", input=Pool)


def test_an_annotation_that_cannot_be_read_matters_only_where_it_is_needed() -> None:
    flow = flow_with_steps()

    def needed(number: Decimal) -> None: ...
    def by_default(number: int, own: Decimal | None = None) -> Decimal: ...  # type: ignore[empty-body]
    def reader(by_default: int) -> None: ...

    message = refused(flow, needed)
    assert "the annotation of parameter 'number' cannot be read (name 'Decimal' is not defined)" in message
    assert "import its type at run time, not only under TYPE_CHECKING" in message.replace("Import", "import")
    flow.step(by_default)
    flow.step(reader)


class Wide(TypedDict):
    a: int
    b: int


class Narrow(TypedDict):
    a: int


class Other(TypedDict):
    c: int


@pytest.mark.parametrize(
    ("produced", "wanted", "clashes"),
    [
        (Receipt, Receipt, False),
        (Signed, Receipt, False),
        (Receipt, Signed, False),
        (Receipt, Order, True),
        (Receipt, dict, False),
        (Receipt, dict[str, Any], False),
        (Receipt, list[int], True),
        (Receipt, Any, False),
        (Receipt, object, False),
        (Receipt, Receipt | None, False),
        (Receipt | None, Receipt, False),
        (Receipt, Order | None, True),
        (Receipt | Order, Order, False),
        (None, Receipt, True),
        (None, Receipt | None, False),
        (int, str, True),
        (int, float, False),
        (bool, int, False),
        (list[int], list[int], False),
        (list[int], list[str], True),
        (list[int], list[Any], False),
        (list[int], list, False),
        (list[int], tuple[int, ...], False),
        (dict[str, int], dict[str, str], True),
        (Literal["a"], str, False),
        (Annotated[int, Field(gt=0)], int, False),
        (Annotated[int, Field(gt=0)], Annotated[str, Field()], True),
        (Wide, Narrow, False),
        (Narrow, Wide, True),
        (Narrow, Other, True),
        (Narrow, Receipt, False),
    ],
)
def test_annotations_are_compared(produced: Any, wanted: Any, clashes: bool) -> None:
    flow = Workflow("flow")

    def give() -> Any: ...
    def take(give: Any) -> None: ...

    give.__annotations__["return"] = produced
    take.__annotations__["give"] = wanted
    flow.step(give)
    if clashes:
        message = refused(flow, take)
        assert "but step 'give' returns" in message
        assert "Make the two annotations agree" in message
    else:
        flow.step(take)


def test_an_input_annotation_that_cannot_work() -> None:
    flow = Workflow("flow", input=Order)

    def work(input: list[int]) -> None: ...

    assert "parameter 'input' is annotated list[int], but the input is Order. Annotate it with Order" in refused(
        flow, work
    )


def test_workflow_arguments() -> None:
    with pytest.raises(DefinitionError, match=r"slug 'a b' is not allowed: pass slug= with letters, digits, '_', '.'"):
        Workflow("a b")
    with pytest.raises(DefinitionError, match="on_error='ignore' is unknown: write 'stop' or 'finish'"):
        Workflow("a", on_error="ignore")  # type: ignore[call-overload]
    with pytest.raises(DefinitionError, match="workflow 'a': timeout='x'"):
        Workflow("a", timeout="x")
