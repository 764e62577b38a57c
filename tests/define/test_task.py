"""Tasks: functions that are workflows of one step."""

from __future__ import annotations

import pickle
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

import redisflow.inline  # noqa: F401 -- registers the runner
from redisflow.define import From, Retry, StepContext, Task, Use, resource, task
from redisflow.model.errors import DefinitionError, InvalidInput, RunFailed


class Mail(BaseModel):
    to: str


@resource
async def smtp() -> list[str]:
    return []


@task
async def send(mail: Mail, server: Annotated[list[str], Use(smtp)], ctx: StepContext) -> int:
    """Send a mail."""
    server.append(mail.to)
    return len(server)


@task(slug="math.add", retry=Retry(attempts=2), queue="math")
def add(a: int, b: int = 2, *, copy: bool = False) -> int:
    return a + b


@task
def ping() -> str:
    return "pong"


def test_a_task_is_still_its_function() -> None:
    assert add(1, b=4) == 5
    assert (send.__name__, send.__doc__) == ("send", "Send a mail.")
    assert repr(add) == "<Task math.add>"
    assert isinstance(add, Task)
    assert pickle.loads(pickle.dumps(add)) is add


def test_its_workflow() -> None:
    plan = add.workflow.plan
    assert (plan.slug, plan.steps[0].id, plan.steps[0].queue) == ("math.add", "add", "math")
    assert plan.steps[0].export
    assert plan.steps[0].retry.max_attempts == 2
    assert plan.input_schema is not None
    assert plan.input_schema["required"] == ["a"]
    assert plan.input_required
    assert plan.output_schema == {"type": "integer"}
    assert send.workflow.plan.input_schema == Mail.model_json_schema()
    assert not ping.workflow.plan.input_required


async def test_it_runs_inline() -> None:
    assert await send.workflow.run_inline(Mail(to="a"), resources={smtp: ["b"]}) == 2
    assert await add.workflow.run_inline({"a": 1}) == 3
    assert await add.workflow.run_inline({"a": 1, "b": 4, "copy": True}) == 5
    assert await ping.workflow.run_inline() == "pong"


@pytest.mark.parametrize(
    ("value", "paths"), [({"b": 1}, ["a"]), ({"a": "x"}, ["a"]), ({"a": 1, "c": 1}, ["c"]), (None, ["$"])]
)
async def test_its_input_is_checked_by_field(value: Any, paths: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"input of workflow 'math.add'") as caught:
        await add.workflow.run_inline(value)
    assert [path for path, _ in caught.value.problems] == paths


def test_bind_spreads_the_fields() -> None:
    step = add.workflow.steps["add"]
    assert step.bind('{"a": 1}', {}, None, {}) == {"a": 1}
    with pytest.raises(InvalidInput, match="a: Field required"):
        step.bind(None, {}, None, {})


async def test_defaults_make_the_input_optional() -> None:
    @task
    def greet(name: str = "you", times: int = 1) -> str:
        return name * times

    @task
    def shout(name: str = "you") -> str:
        return name.upper()

    assert await greet.workflow.run_inline() == "you"
    assert await greet.workflow.run_inline({"times": 2}) == "youyou"
    assert await shout.workflow.run_inline() == "YOU"
    assert await shout.workflow.run_inline("me") == "ME"


async def test_local_types_and_no_types() -> None:
    class Local(BaseModel):
        n: int

    @task
    def twice(local: Local, k: int) -> list[Local]:
        return [local] * k

    @task
    def anything(x):  # type: ignore[no-untyped-def]
        return x

    assert await twice.workflow.run_inline({"local": {"n": 1}, "k": 2}) == [Local(n=1)] * 2
    assert await anything.workflow.run_inline({"a": 1}) == {"a": 1}


async def test_a_task_that_returns_nothing() -> None:
    @task
    def nothing(x: int) -> None: ...

    @task
    def lies() -> int:
        return "x"  # type: ignore[return-value]

    assert await nothing.workflow.run_inline(1) is None
    with pytest.raises(InvalidInput, match="output of workflow 'lies'"):
        await lies.workflow.run_inline()


async def test_a_failing_task() -> None:
    @task
    def boom() -> None:
        raise KeyError("k")

    with pytest.raises(RunFailed) as caught:
        await boom.workflow.run_inline()
    assert (caught.value.step_id, caught.value.error_name) == ("boom", "KeyError")


def test_what_cannot_be_a_task() -> None:
    def args(*a: int) -> None: ...
    def wants(x: Annotated[int, From("y")]) -> None: ...
    def unreadable(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    for fn, why in [
        (args, "task 'args': .*name each parameter"),
        (wants, "task 'wants': 'x' asks for a step's output, but a task is one step: use a Workflow"),
        (unreadable, "task 'unreadable': the annotation of parameter 'x' cannot be read"),
        (Mail, "task 'Mail': .* is not a function"),
    ]:
        with pytest.raises(DefinitionError, match=why):
            task(fn)
    with pytest.raises(DefinitionError, match="step 'ping' of workflow 'ping': timeout"):
        task(timeout="1s")(ping.fn)
