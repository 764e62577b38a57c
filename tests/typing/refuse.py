"""What type checkers must refuse; read by tests/define/test_typing.py, which compares error by error, never run."""

from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import BaseModel

from redisflow.define import From, Retry, RetryAfter, Skip, StepContext, Use, Workflow, resource, task


class Order(BaseModel):
    id: str


flow = Workflow("flow", input=Order, output=int)

Workflow()  # error: call-overload
Workflow("flow", input=5)  # error: call-overload
Workflow("flow", on_error="ignore")  # error: call-overload
Workflow("flow", timeout=[])  # error: call-overload


@flow.step(retry="five")  # error: arg-type
def one() -> None: ...


@flow.step(retry=[1, 2])  # error: list-item list-item
def two() -> None: ...


@flow.step(unknown=True)  # error: call-overload untyped-decorator
def three() -> None: ...


flow.step(3)  # error: call-overload


@flow.step
async def four(order: Order, ctx: StepContext) -> int:
    ctx.attempt = 2  # error: misc
    return ctx.missing  # error: no-any-return attr-defined


Retry(attempts="5")  # error: arg-type
Retry(tries=5)  # error: call-arg
Skip()  # error: call-arg
RetryAfter(None)  # error: arg-type
From(4)  # error: arg-type


@resource
async def pool() -> AsyncIterator[int]:
    yield 1


@resource  # error: arg-type
async def needs(url: str) -> AsyncIterator[int]:
    yield 1


Use(one)  # error: arg-type


@task
def double(n: int) -> int:
    return 2 * n


@task
async def send(to: Annotated[str, "address"]) -> int:
    return 1


async def runs() -> None:
    await four("order", None)  # error: arg-type arg-type
    await flow.run_inline("order")  # error: arg-type
    await flow.run_inline(Order(id="1"), stubs=[four])  # error: arg-type
    text: str = await flow.run_inline(Order(id="1"))  # error: assignment
    double("2")  # error: arg-type
    other: str = await send("a")  # error: assignment
    output: str = await double.workflow.run_inline(1)  # error: assignment
    del text, other, output
