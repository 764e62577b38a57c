"""Runs in this process: the same rules as on the server."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from redisflow.define import (
    Fatal,
    Retry,
    RetryAfter,
    Skip,
    StepContext,
    Use,
    Workflow,
    resource,
    runner,
    set_inline_runner,
)
from redisflow.inline import run_inline
from redisflow.model.errors import DefinitionError, InvalidInput, PayloadTooLarge, RedisflowError, RunFailed


class Order(BaseModel):
    id: str
    cents: int


@dataclasses.dataclass
class Pool:
    left: int = 1


class Reservation(BaseModel):
    left: int


class Coupon(BaseModel):
    code: str


class Receipt(BaseModel):
    total: int
    coupon: str | None = None


checkout = Workflow("checkout", input=Order, output=Receipt)


@resource
async def db() -> AsyncIterator[Pool]:
    yield Pool()


@checkout.step
async def reserve(order: Order, pool: Annotated[Pool, Use(db)]) -> Reservation:
    return Reservation(left=pool.left)


@checkout.step(retry=Retry(attempts=5, delay="1s", factor=2, crashes=3), timeout="30s")
async def charge(order: Order, reserve: Reservation, ctx: StepContext) -> Receipt:
    assert ctx.idempotency_key == "inline:charge"
    return Receipt(total=order.cents * reserve.left)


@checkout.step
def coupon(order: Order) -> Coupon:
    raise Skip("no coupon")


@checkout.step(export=True)
async def confirm(charge: Receipt, coupon: Coupon | None = None) -> Receipt:
    return charge.model_copy(update={"coupon": coupon and coupon.code})


order = Order(id="o-1", cents=499)


async def test_the_checkout() -> None:
    assert await checkout.run_inline(order) == Receipt(total=499)
    assert await checkout.run_inline(order, resources={db: Pool(left=2)}) == Receipt(total=998)
    stubbed = await checkout.run_inline(order, stubs={charge: Receipt(total=1), "coupon": Coupon(code="c")})
    assert stubbed == Receipt(total=1, coupon="c")
    with pytest.raises(InvalidInput, match="input of workflow 'checkout'"):
        await checkout.run_inline()
    assert (await confirm(Receipt(total=3))).total == 3


class Gateway:
    def __init__(self) -> None:
        self.keys: list[str] = []

    async def charge(self, cents: int, key: str) -> Receipt:
        self.keys.append(key)
        return Receipt(total=cents)


gateway = Gateway()


async def test_the_example_of_the_docs() -> None:
    checkout = Workflow("checkout", input=Order, output=Receipt)

    @resource
    async def db() -> AsyncIterator[Pool]:
        yield Pool()

    @checkout.step
    async def reserve(order: Order, pool: Annotated[Pool, Use(db)]) -> Reservation:
        return Reservation(left=pool.left)

    @checkout.step(retry=Retry(attempts=5, delay="1s", factor=2, crashes=3), timeout="30s")
    async def charge(order: Order, reserve: Reservation, ctx: StepContext) -> Receipt:
        return await gateway.charge(order.cents, key=ctx.idempotency_key)

    @checkout.step(export=True)
    async def confirm(charge: Receipt, coupon: Coupon | None = None) -> Receipt:
        return charge

    assert await checkout.run_inline(order, resources={db: Pool()}) == Receipt(total=499)
    assert gateway.keys == ["inline:charge"]
    assert await checkout.run_inline(order, stubs={charge: Receipt(total=2)}) == Receipt(total=2)


async def test_a_stub_that_names_no_step() -> None:
    with pytest.raises(DefinitionError, match=r"workflow 'checkout': 'chrage' is no step .* Did you mean 'charge'\?"):
        await checkout.run_inline(order, stubs={"chrage": None})


async def test_stubs_may_raise() -> None:
    assert await checkout.run_inline(order, stubs={confirm: Skip("not now")}) is None
    with pytest.raises(RunFailed) as caught:
        await checkout.run_inline(order, stubs={charge: ValueError("declined")})
    assert (caught.value.run_id, caught.value.step_id) == ("inline", "charge")
    assert (caught.value.error_name, caught.value.error_message) == ("ValueError", "declined")
    assert caught.value.stack is not None
    assert "declined" in caught.value.stack
    assert isinstance(caught.value.__cause__, ValueError)


async def test_steps_run_side_by_side() -> None:
    flow = Workflow("flow")
    here, there = asyncio.Event(), asyncio.Event()

    @flow.step
    async def one() -> None:
        here.set()
        await asyncio.wait_for(there.wait(), 5)

    @flow.step
    async def two() -> None:
        there.set()
        await asyncio.wait_for(here.wait(), 5)

    await flow.run_inline()


async def test_payloads_travel_as_json() -> None:
    flow = Workflow("flow")

    @flow.step
    def give() -> Any:
        return {1: (2, 3)}

    @flow.step(export=True)
    def take(give) -> Any:  # type: ignore[no-untyped-def]
        return give

    assert await flow.run_inline() == {"1": [2, 3]}


async def test_an_output_over_the_cap_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDISFLOW_MAX_PAYLOAD_BYTES", "2000")
    flow = Workflow("flow")

    @flow.step
    def give() -> str:
        return "x" * 3000

    with pytest.raises(RunFailed, match="PayloadTooLarge: output of step 'give' of workflow 'flow'"):
        await flow.run_inline()
    with pytest.raises(PayloadTooLarge, match="input of workflow 'flow'"):
        await flow.run_inline("x" * 3000)


def failing(times: int, error: Exception, **options: Any) -> tuple[Workflow[Any, Any], list[int]]:
    flow = Workflow("flow")
    attempts: list[int] = []

    @flow.step(export=True, **options)
    async def work(ctx: StepContext) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt <= times:
            raise error
        return ctx.attempt

    return flow, attempts


async def test_retries_follow_the_policy_without_the_wait() -> None:
    retry = [Retry(attempts=2, delay="1h"), Retry(attempts=1, delay="1h")]
    flow, attempts = failing(2, ValueError("x"), retry=retry)
    assert await flow.run_inline() == 3
    flow, attempts = failing(3, ValueError("x"), retry=retry)
    with pytest.raises(RunFailed, match="run inline failed in step 'work': ValueError: x"):
        await flow.run_inline()
    assert attempts == [1, 2, 3]


async def test_fatal_and_retry_after() -> None:
    flow, attempts = failing(1, Fatal("broken"), retry=5)
    with pytest.raises(RunFailed, match="Fatal: broken"):
        await flow.run_inline()
    assert attempts == [1]
    flow, attempts = failing(1, RetryAfter("1h"), retry=2)
    assert await flow.run_inline() == 2
    flow, attempts = failing(1, RetryAfter("1h", "busy"))
    with pytest.raises(RunFailed, match="RetryAfter: busy"):
        await flow.run_inline()


async def test_real_delays() -> None:
    for error, options in [
        (RetryAfter("50ms"), {"retry": Retry(attempts=2, delay="1h")}),
        (ValueError(), {"retry": Retry(attempts=2, delay="50ms", jitter=0)}),
    ]:
        flow, _ = failing(1, error, **options)
        begun = time.monotonic()
        await flow.run_inline(real_delays=True)
        assert time.monotonic() - begun >= 0.05


def skipping() -> tuple[Workflow[Any, Any], list[str]]:
    flow = Workflow("flow")
    ran: list[str] = []

    @flow.step
    def source() -> int:
        raise Skip("nothing")

    @flow.step(export=True)
    def needs(source: int) -> int:
        ran.append("needs")
        return 1

    @flow.step
    def needs_indirectly(needs: int) -> int:
        ran.append("needs_indirectly")
        return 1

    @flow.step(export=True)
    def can_do_without(source: int = 7) -> int:
        ran.append("can_do_without")
        return source

    @flow.step(after=[source, needs_indirectly])
    def comes_after() -> None:
        ran.append("comes_after")

    return flow, ran


async def test_a_skip_cascades_only_where_the_output_is_needed() -> None:
    flow, ran = skipping()
    assert await flow.run_inline() == {"can_do_without": 7}
    assert sorted(ran) == ["can_do_without", "comes_after"]


async def test_without_the_skip_all_of_them_run() -> None:
    flow, ran = skipping()
    assert await flow.run_inline(stubs={"source": 1}) == {"needs": 1, "can_do_without": 1}
    assert ran.index("comes_after") > ran.index("needs_indirectly")
    assert len(ran) == 4


def one_fails(on_error: Any) -> tuple[Workflow[Any, Any], list[str]]:
    flow = Workflow("flow", on_error=on_error)
    log: list[str] = []

    @flow.step
    async def bad() -> int:
        raise ValueError("first")

    @flow.step
    async def slow() -> int:
        try:
            await asyncio.sleep(0.02 if on_error == "finish" else 60)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
        return 1

    @flow.step
    async def next_one(slow: int) -> int:
        log.append("next_one")
        raise KeyError("second")

    @flow.step
    async def dependent(bad: int = 1) -> None:
        log.append("dependent")

    @flow.step(after=[bad])
    async def later() -> None:
        log.append("later")

    return flow, log


async def test_on_error_stop_ends_the_run_at_once() -> None:
    flow, log = one_fails("stop")
    with pytest.raises(RunFailed, match="ValueError: first"):
        await flow.run_inline()
    assert log == ["cancelled"]


async def test_on_error_finish_lets_the_others_end() -> None:
    flow, log = one_fails("finish")
    with pytest.raises(RunFailed, match="step 'bad': ValueError: first"):
        await flow.run_inline()
    assert log == ["next_one"]


async def test_timeouts() -> None:
    flow = Workflow("flow")

    @flow.step(timeout="20ms")
    async def slow() -> None:
        await asyncio.sleep(60)

    with pytest.raises(RunFailed, match=r"step 'slow': TimeoutError: .* longer than its timeout of 20.0ms"):
        await flow.run_inline()

    own = Workflow("own")

    @own.step(timeout="60s")
    async def raises() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(RunFailed, match="TimeoutError: of its own"):
        await own.run_inline()

    whole = Workflow("whole", timeout="20ms")
    whole.step(name="slow")(slow)
    with pytest.raises(
        RunFailed, match=r"run inline failed: TimeoutError: the run took longer than its timeout of 20.0ms"
    ):
        await whole.run_inline()


async def test_plain_functions_run_in_threads_and_see_the_end() -> None:
    flow = Workflow("flow")
    ended, seen = threading.Event(), []

    @flow.step
    def thread(ctx: StepContext) -> None:
        seen.append(threading.current_thread() is threading.main_thread())
        while not ctx.cancelled:
            time.sleep(0.005)
        ended.set()

    @flow.step
    async def bad() -> None:
        await asyncio.sleep(0.02)
        raise ValueError

    with pytest.raises(RunFailed):
        await flow.run_inline()
    assert await asyncio.to_thread(ended.wait, 5)
    assert seen == [False]


async def test_a_body_that_cancels_itself_fails() -> None:
    flow = Workflow("flow")

    @flow.step(retry=2)
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RunFailed, match="CancelledError"):
        await asyncio.wait_for(flow.run_inline(), 5)


async def test_cancelling_the_run_leaves_nothing_behind() -> None:
    flow = Workflow("flow")
    closed = []
    begun = asyncio.Event()

    @resource
    async def thing() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append(1)

    @flow.step
    async def work(t: Annotated[int, Use(thing)]) -> None:
        begun.set()
        await asyncio.sleep(60)

    before = asyncio.all_tasks()
    task = asyncio.create_task(flow.run_inline())
    await asyncio.wait_for(begun.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [1]
    assert asyncio.all_tasks() == before


async def test_resources_of_stubbed_steps_stay_closed() -> None:
    flow = Workflow("flow")
    opened = []

    @resource
    async def thing() -> int:
        opened.append(1)
        return len(opened)

    @flow.step(export=True)
    async def one(t: Annotated[int, Use(thing)]) -> int:
        return t

    @flow.step
    async def two(t: Annotated[int, Use(thing)]) -> int:
        return t

    assert await flow.run_inline(stubs={one: 5, two: 5}) == 5
    assert opened == []
    assert await flow.run_inline() == 1
    assert opened == [1]


async def test_the_context(caplog: pytest.LogCaptureFixture) -> None:
    flow = Workflow("flow")

    @flow.step(export=True)
    async def work(ctx: StepContext) -> list[Any]:
        ctx.logger.info("hello")
        return [ctx.workflow, ctx.run_id, ctx.step_id, ctx.attempt, ctx.worker_id, ctx.cancelled]

    with caplog.at_level(logging.INFO):
        assert await flow.run_inline() == ["flow", "inline", "work", 1, "inline", False]
    assert caplog.record_tuples == [("redisflow.step.flow.work", logging.INFO, "hello")]


async def test_without_the_runner_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_registered", [])
    with pytest.raises(RedisflowError, match=r"import redisflow, or redisflow.inline, first"):
        await checkout.run_inline(order)
    set_inline_runner(run_inline)
    assert await checkout.run_inline(order) == Receipt(total=499)


async def test_a_checkpoint_runs_its_part() -> None:
    flow = Workflow("parts", output=int)

    @flow.step(export=True)
    async def whole(ctx: StepContext) -> int:
        async def first() -> int:
            return 1

        return await ctx.checkpoint("first", first) + await ctx.checkpoint("second", lambda: 2)

    assert await flow.run_inline() == 3
