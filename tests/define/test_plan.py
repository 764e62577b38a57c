"""The compiled plan: its edges, its version, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from redisflow.define import Retry, Workflow
from redisflow.model.errors import DefinitionError
from redisflow.model.workflow import Edge, Plan, PlanStep


class Order(BaseModel):
    id: str
    cents: int = 0


def plan_of(*steps: PlanStep, **more: Any) -> Plan:
    return Plan(slug="p", name="p", steps=steps, **more)


def step(step_id: str, *edges: tuple[str, str], **more: Any) -> PlanStep:
    dependencies = tuple(Edge(step=s, kind=k) for s, k in edges)  # type: ignore[arg-type]
    params = tuple(s for s, k in edges if k == "required")
    return PlanStep(
        **{"id": step_id, "name": step_id, "queue": "q", "dependencies": dependencies, "params": params} | more
    )


def test_dependents_and_roots() -> None:
    plan = plan_of(step("a"), step("b", ("a", "required")), step("c", ("a", "after"), ("b", "optional")), step("d"))
    assert plan.roots == ("a", "d")
    assert plan.dependents == {
        "a": (("b", "required"), ("c", "after")),
        "b": (("c", "optional"),),
        "c": (),
        "d": (),
    }


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: plan_of(), "at least 1"),
        (lambda: plan_of(step("a"), step("a")), "there twice"),
        (lambda: plan_of(step("a", ("b", "after")), step("b")), "not above"),
        (lambda: plan_of(step("a", ("a", "after"))), "not above"),
        (lambda: plan_of(step("a//b")), "pattern"),
        (lambda: plan_of(step("a", queue="q/1")), "pattern"),
        (lambda: plan_of(step("a"), step("b", ("a", "required"), params=())), "params must be"),
        (lambda: plan_of(step("a"), step("b", ("a", "required"), ("a", "after"))), "twice"),
        (lambda: plan_of(step("a"), timeout_us=0), "greater than 0"),
    ],
)
def test_what_a_plan_refuses(make: Any, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make()


def test_the_version_survives_storage_and_ignores_names() -> None:
    plan = plan_of(step("a"), step("b", ("a", "required")), input_schema={"type": "object"})
    assert plan.version.startswith("sha256:")
    assert len(plan.version) == 71
    stored = Plan.model_validate_json(plan.model_dump_json())
    assert stored == plan
    assert stored.version == plan.version
    assert plan.model_copy(update={"name": "other"}).version == plan.version


@pytest.mark.parametrize(
    "other",
    [
        plan_of(step("a", code="1")),
        plan_of(step("a", queue="r")),
        plan_of(step("a", timeout_us=1)),
        plan_of(step("a", export=True)),
        plan_of(step("a"), on_error="finish"),
        plan_of(step("a"), step("b")),
        plan_of(step("a"), input_schema={}),
    ],
)
def test_the_version_tells_all_else_apart(other: Plan) -> None:
    assert other.version != plan_of(step("a")).version


def checkout(body: int = 1, **options: Any) -> Workflow[Order, Any]:
    flow = Workflow("checkout", input=Order, **options)
    if body == 1:

        @flow.step
        def reserve(order: Order) -> str:
            return "one"
    else:

        @flow.step
        def reserve(order: Order) -> str:
            return "two"

    @flow.step(retry=Retry(attempts=5), queue="money", export=True)
    async def charge(order: Order, reserve: str) -> int:
        return order.cents

    @flow.step(after=[reserve, "charge"])
    def tell(reserve: str = "") -> None: ...

    return flow


def test_a_workflow_compiles_to_its_plan() -> None:
    plan = checkout(timeout="1h", name="Check out", on_error="finish").plan
    assert (plan.slug, plan.name, plan.on_error, plan.timeout_us) == (
        "checkout",
        "Check out",
        "finish",
        3_600_000_000,
    )
    assert plan.input_required
    assert plan.input_schema is not None
    assert plan.input_schema["required"] == ["id"]
    assert plan.output_schema is None
    reserve, charge, tell = plan.steps
    assert (reserve.id, reserve.queue, reserve.dependencies, reserve.export) == (
        "reserve",
        "checkout",
        (),
        False,
    )
    assert (charge.queue, charge.export, charge.retry.max_attempts, charge.params) == (
        "money",
        True,
        5,
        ("reserve",),
    )
    assert tell.dependencies == (Edge(step="reserve", kind="optional"), Edge(step="charge", kind="after"))


def test_the_code_of_a_step_is_part_of_the_version() -> None:
    assert checkout().plan.version == checkout().plan.version
    assert checkout(body=2).plan.version != checkout().plan.version


def test_code_without_a_file_counts_too() -> None:
    def version(text: str) -> str:
        flow = Workflow("typed")
        space: dict[str, Any] = {}
        exec(text, space)
        flow.step(space["work"])
        return flow.plan.version

    assert version("def work(): return {'a', 1}") == version("def work(): return {'a', 1}")
    assert version("def work(): return 1") != version("def work(): return 2")


@pytest.mark.parametrize(
    ("declared", "required", "has_schema"),
    [(None, False, False), (Order, True, True), (int | None, False, True), (list[int], True, True)],
)
def test_when_an_input_is_required(declared: Any, required: bool, has_schema: bool) -> None:
    flow: Workflow[Any, Any] = Workflow("flow", input=declared)

    @flow.step
    def work() -> None: ...

    assert flow.plan.input_required is required
    assert (flow.plan.input_schema is not None) is has_schema


def test_defaults_make_an_input_optional() -> None:
    flow = Workflow("flow", input=Order)

    @flow.step
    def work(order: Order | None = None) -> None: ...

    assert not flow.plan.input_required


def test_a_workflow_is_sealed_by_the_first_look_at_its_plan() -> None:
    flow = Workflow("flow")
    with pytest.raises(DefinitionError, match=r"workflow 'flow' has no steps: declare one with @workflow.step"):
        _ = flow.plan

    @flow.step
    def one() -> None: ...

    assert flow.plan is flow.plan
    with pytest.raises(DefinitionError, match=r"step 'two' of workflow 'flow': the workflow is sealed .* declare all"):

        @flow.step
        def two() -> None: ...


def test_a_declared_output_has_a_step_that_gives_it() -> None:
    flow = Workflow("flow", output=int)

    @flow.step
    def one() -> str:
        return ""

    with pytest.raises(DefinitionError, match=r"declares output=int, but no step gives it.*export=True.*'one'"):
        _ = flow.plan

    @flow.step(export=True)
    def two() -> str:
        return ""

    with pytest.raises(DefinitionError, match=r"step 'two' .* returns str, but the workflow declares output=int"):
        _ = flow.plan
