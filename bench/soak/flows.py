"""What the soak runs: graphs whose steps fail, skip, dawdle and end well by a draw that depends on the input alone.

Every execution writes a line `run step time` into the ledger before it does anything else.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

from redisflow import Fatal, Retry, Skip, StepContext, Workflow

_ledger: int | None = None


def record(ctx: StepContext) -> None:
    """One line for one execution: a single write, which the kernel appends whole."""
    global _ledger
    if _ledger is None:
        _ledger = os.open(os.environ["SOAK_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_ledger, f"{ctx.run_id} {ctx.step_id} {time.monotonic()}\n".encode())


def draw(ctx: StepContext) -> random.Random:
    """The luck of an execution."""
    return random.Random(f"{ctx.run_id} {ctx.step_id} {ctx.attempt}")


async def live(ctx: StepContext) -> None:
    """Leave the line, take a moment, and fail or not."""
    record(ctx)
    luck = draw(ctx)
    await asyncio.sleep(luck.choice((0, 0, 0.001, 0.01, 0.05)))
    fate = luck.random()
    if fate < 0.06:
        raise ConnectionError("by the draw")
    if fate < 0.07:
        raise Fatal("by the draw")


AGAIN = Retry(attempts=3, delay="50ms", crashes=50)

chain = Workflow("chain", input=dict[str, Any], output=int)


@chain.step(retry=AGAIN)
async def first(input: dict[str, Any], ctx: StepContext) -> int:
    await live(ctx)
    return int(input["n"])


@chain.step(retry=AGAIN)
def second(first: int, ctx: StepContext) -> int:
    record(ctx)
    return first + 1


@chain.step(retry=AGAIN, export=True)
async def third(second: int, ctx: StepContext) -> int:
    await live(ctx)
    return second + 1


diamond = Workflow("diamond", input=dict[str, Any], output=int)


@diamond.step(retry=AGAIN)
async def top(input: dict[str, Any], ctx: StepContext) -> int:
    await live(ctx)
    return int(input["n"])


@diamond.step(retry=AGAIN)
async def left(top: int, ctx: StepContext) -> int:
    await live(ctx)
    if top % 5 == 0:
        raise Skip("every fifth")
    return top


@diamond.step(retry=AGAIN)
async def right(top: int, ctx: StepContext) -> int:
    await live(ctx)
    if top % 50 == 7:
        raise Skip("rarely, and then what needs it too")
    return top


@diamond.step(retry=AGAIN, export=True)
async def join(right: int, ctx: StepContext, left: int = 0) -> int:
    await live(ctx)
    return left + right


wide = Workflow("wide", input=dict[str, Any], output=int, on_error="finish")
WIDTH = 12


def branch(number: int) -> Any:
    async def body(input: dict[str, Any], ctx: StepContext) -> int:
        await live(ctx)
        return number

    body.__name__ = f"branch{number}"
    return body


for _number in range(WIDTH):
    wide.step(branch(_number), retry=AGAIN)


@wide.step(after=[f"branch{number}" for number in range(WIDTH)], export=True)
async def total(input: dict[str, Any], ctx: StepContext) -> int:
    await live(ctx)
    return WIDTH


FLOWS = (chain, diamond, wide)
