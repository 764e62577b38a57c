"""What type checkers must take, with the types that they must infer; read by tests/define/test_typing.py, never run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Annotated, Any, assert_type

from pydantic import BaseModel

from redisflow.define import From, Resource, Retry, StepContext, Task, Use, Workflow, resource, task


class Order(BaseModel):
    id: str


class Receipt(BaseModel):
    total: int


both = Workflow("both", input=Order, output=Receipt, on_error="finish", timeout="1h")
assert_type(both, Workflow[Order, Receipt])
assert_type(Workflow("neither"), Workflow[Any, Any])
assert_type(Workflow("input", input=Order), Workflow[Order, Any])
assert_type(Workflow("output", output=Receipt), Workflow[Any, Receipt])
assert_type(Workflow("union", input=int | None), Workflow[int | None, Any])
assert_type(Workflow("generic", input=list[Order], output=dict[str, int]), Workflow[list[Order], dict[str, int]])
assert_type(Workflow("annotated", output=Annotated[int, "positive"]), Workflow[Any, int])


@resource
async def pool() -> AsyncIterator[list[int]]:
    yield []


@resource
def path() -> Iterator[str]:
    yield "/"


@resource
async def token() -> bytes:
    return b""


assert_type(pool, Resource[list[int]])
assert_type(path, Resource[str])
assert_type(token, Resource[bytes])


@both.step
async def reserve(order: Order, pool: Annotated[list[int], Use(pool)]) -> int:
    return len(pool)


@both.step(retry=Retry(attempts=5, delay=timedelta(seconds=1), crashes=3), timeout="30s", after=[reserve, "reserve"])
async def charge(order: Order, ctx: StepContext) -> Receipt:
    return Receipt(total=len(ctx.idempotency_key) + ctx.attempt)


@both.step(retry=[Retry(attempts=2), Retry(attempts=3, delay="1m")], export=True, queue="mail", name="confirm-it")
def confirm(paid: Annotated[Receipt, From(charge)]) -> Receipt:
    return paid


@both.step(retry=3)
def count() -> int:
    return 1


async def steps_are_their_functions() -> None:
    assert_type(await reserve(Order(id="1"), [1]), int)
    assert_type(confirm(Receipt(total=1)), Receipt)
    one: Callable[[Receipt], Receipt] = confirm
    two: Callable[[Order, StepContext], Awaitable[Receipt]] = charge
    del one, two


async def runs_are_typed() -> None:
    assert_type(await both.run_inline(Order(id="1"), stubs={charge: 1, "count": 2}, resources={pool: [3]}), Receipt)
    assert_type(both.output_of({}), Receipt)


@task
async def send(to: str, times: int = 1) -> int:
    return times


@task(slug="math.double", retry=5)
def double(n: int) -> int:
    return 2 * n


@task(timeout="1s")
async def slow(ctx: StepContext) -> list[str]:
    return []


async def tasks_are_their_functions_too() -> None:
    assert_type(await send("a", times=2), int)
    assert_type(double(2), int)
    assert_type(await slow.workflow.run_inline(), list[str])
    assert_type(send.workflow, Workflow[Any, int])
    assert_type(double.workflow, Workflow[Any, int])
    kept: Task[[int], int, int] = double
    also: Callable[[str], Coroutine[Any, Any, int]] = send
    del kept, also
