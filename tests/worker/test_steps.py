"""What a worker makes of a step: arguments in, an outcome out, whatever the body does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from redisflow import (
    Client,
    Fatal,
    Retry,
    RetryAfter,
    RunFailed,
    Settings,
    Skip,
    StepContext,
    Use,
    Worker,
    Workflow,
    resource,
)
from tests.conftest import assert_consistent


class Order(BaseModel):
    id: str
    cents: int


@dataclass
class Receipt:
    order: str
    total: int


async def types_of(client: Client, run_id: str, step: str | None = None) -> list[str]:
    wire = await client.backend.load_wire_events(run_id)
    return [event["type"] for event in wire if step is None or event.get("stepId") == step]


async def failure_of(client: Client, run_id: str) -> dict[str, Any]:
    wire = await client.backend.load_wire_events(run_id)
    return next(event for event in wire if event["type"] == "StepFailed")


async def test_async_and_plain_steps_run_and_the_result_is_typed(client: Client) -> None:
    flow = Workflow("shop", input=Order, output=Receipt)
    threads: dict[str, threading.Thread] = {}

    @flow.step
    async def price(order: Order) -> int:
        threads["price"] = threading.current_thread()
        return order.cents * 2

    @flow.step(export=True)
    def bill(order: Order, price: int) -> Receipt:
        threads["bill"] = threading.current_thread()
        return Receipt(order.id, price)

    async with Worker(client, [flow]):
        run = await client.submit(flow, Order(id="o-1", cents=21))
        assert await run.result(timeout=10) == Receipt("o-1", 42)
    assert threads["price"] is threading.main_thread()
    assert threads["bill"] is not threading.main_thread()
    assert await types_of(client, run.id) == [
        "RunSubmitted", "StepScheduled", "WorkflowStarted", "WorkflowInputValidation", "StepStarted",
        "StepCompleted", "StepScheduled", "StepStarted", "StepCompleted", "WorkflowCompleted",
    ]  # fmt: skip


async def test_the_context_names_the_execution(client: Client) -> None:
    flow = Workflow("context")
    seen: list[tuple[Any, ...]] = []

    @flow.step
    async def look(ctx: StepContext) -> None:
        seen.append(
            (
                ctx.workflow,
                ctx.run_id,
                ctx.step_id,
                ctx.attempt,
                ctx.idempotency_key,
                ctx.worker_id,
                ctx.cancelled,
            )
        )

    async with Worker(client, [flow], worker_id="someone") as worker:
        run = await client.submit(flow)
        assert await run.result(timeout=10) is None
    assert seen == [("context", run.id, "look", 1, f"{run.id}:look", worker.id, False)]
    assert worker.id.startswith("someone.")


async def test_a_payload_too_large_for_the_claim_arrives_all_the_same(client: Client) -> None:
    flow = Workflow("bulky", input=str, output=int)

    @flow.step
    async def copy(text: str) -> str:
        return text

    @flow.step(export=True)
    async def measure(text: str, copy: str) -> int:
        assert text == copy
        return len(text)

    async with Worker(client, [flow]):
        runs = await client.submit_many(flow, ["x" * 900_000 for _ in range(12)])
        assert [await run.result(timeout=30) for run in runs] == [900_000] * 12


async def test_a_failing_step_is_tried_again_and_counts_its_attempts(client: Client) -> None:
    flow = Workflow("flaky", output=int)
    seen: list[int] = []

    @flow.step(retry=Retry(attempts=3, delay="10ms", jitter=0), export=True)
    async def flake(ctx: StepContext) -> int:
        seen.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ValueError("not yet")
        return ctx.attempt

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == 3
    assert seen == [1, 2, 3]
    once = ["StepStarted", "StepFailed", "StepRetrying", "StepScheduled"]
    assert await types_of(client, run.id, "flake") == [
        "StepScheduled",
        *once,
        *once,
        "StepStarted",
        "StepCompleted",
    ]


async def test_the_last_failure_is_the_runs(client: Client) -> None:
    flow = Workflow("broken")

    @flow.step(retry=Retry(attempts=2, delay="1ms"))
    def breaks() -> None:
        raise LookupError("nothing there")

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=10)
    assert (caught.value.step_id, caught.value.error_name, caught.value.error_message) == (
        "breaks",
        "LookupError",
        "nothing there",
    )
    assert "in breaks" in (caught.value.stack or "")


async def test_a_step_past_its_timeout_is_cancelled_and_fails_as_timeout(client: Client) -> None:
    flow = Workflow("slow")
    cancelled = asyncio.Event()

    @flow.step(timeout="50ms")
    async def sleep() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match=r"timeout of 0\.05 s"):
            await run.result(timeout=10)
    assert cancelled.is_set()
    failed = await failure_of(client, run.id)
    assert failed["failureReason"] == "timeout"
    assert failed["terminal"] is True


async def test_a_timeout_error_of_the_bodys_own_is_an_ordinary_failure(client: Client) -> None:
    flow = Workflow("own-timeout")

    @flow.step(timeout="30s")
    async def call() -> None:
        raise TimeoutError("the gateway did not answer")

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match="the gateway did not answer"):
            await run.result(timeout=10)
    assert (await failure_of(client, run.id))["failureReason"] == "execution-error"


async def test_skip_takes_along_what_needs_the_step_and_spares_defaults(client: Client) -> None:
    flow = Workflow("choosy", output=str)

    @flow.step
    async def coupon() -> int:
        raise Skip("no coupon", {"asked": True})

    @flow.step
    async def redeem(coupon: int) -> int:
        return coupon

    @flow.step(export=True)
    async def total(coupon: int | None = None) -> str:
        return f"coupon={coupon}"

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == "coupon=None"
    wire = await client.backend.load_wire_events(run.id)
    skips = {event["stepId"]: event for event in wire if event["type"] == "StepSkipped"}
    assert set(skips) == {"coupon", "redeem"}
    assert (skips["coupon"]["skipType"], skips["coupon"]["reason"]) == ("primary", "no coupon")
    assert skips["redeem"]["skipType"] == "cascade"


async def test_fatal_ends_the_attempts(client: Client) -> None:
    flow = Workflow("hopeless")
    attempts: list[int] = []

    @flow.step(retry=5)
    async def give_up(ctx: StepContext) -> None:
        attempts.append(ctx.attempt)
        raise Fatal("no retry")

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match="no retry"):
            await run.result(timeout=10)
    assert attempts == [1]


async def test_retry_after_overrides_the_policys_delay(client: Client) -> None:
    flow = Workflow("throttled", output=int)

    @flow.step(retry=Retry(attempts=2, delay="1h"), export=True)
    async def call(ctx: StepContext) -> int:
        if ctx.attempt == 1:
            raise RetryAfter("40ms")
        return ctx.attempt

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == 2
    wire = await client.backend.load_wire_events(run.id)
    failed, again = [next(e for e in wire if e["type"] == kind and e.get("attemptNumber") == n)
                     for kind, n in (("StepFailed", 1), ("StepStarted", 2))]  # fmt: skip
    assert 40_000 <= again["timestampUs"] - failed["timestampUs"] < 2_000_000


async def test_resources_are_opened_once_and_closed_at_drain(client: Client) -> None:
    log: list[str] = []

    @resource
    async def pool() -> AsyncIterator[str]:
        log.append("open pool")
        yield "pool"
        log.append("close pool")

    @resource
    async def cache() -> AsyncIterator[str]:
        log.append("open cache")
        yield "cache"
        log.append("close cache")

    flow = Workflow("using", output=str)

    @flow.step
    async def first(db: Annotated[str, Use(pool)]) -> str:
        return db

    @flow.step(export=True)
    def second(first: str, db: Annotated[str, Use(pool)], store: Annotated[str, Use(cache)]) -> str:
        return f"{first} {db} {store}"

    async with Worker(client, [flow]):
        runs = await client.submit_many(flow, [None] * 5)
        assert [await run.result(timeout=10) for run in runs] == ["pool pool cache"] * 5
        assert log == ["open pool", "open cache"]
    assert log == ["open pool", "open cache", "close cache", "close pool"]


async def test_given_resources_take_the_place_of_opening(client: Client) -> None:
    @resource
    async def pool() -> str:
        raise AssertionError("opened")

    flow = Workflow("given", output=str)

    @flow.step(export=True)
    async def use(db: Annotated[str, Use(pool)]) -> str:
        return db

    async with Worker(client, [flow], resources={pool: "fake"}):
        run = await client.submit(flow)
        assert await run.result(timeout=10) == "fake"


async def test_a_resource_that_does_not_open_fails_the_step(client: Client) -> None:
    @resource
    async def pool() -> str:
        raise ConnectionError("no database")

    flow = Workflow("unopened")

    @flow.step
    async def use(db: Annotated[str, Use(pool)]) -> None: ...

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match="no database"):
            await run.result(timeout=10)


async def test_an_output_without_json_form_is_kept_as_a_description(client: Client) -> None:
    flow = Workflow("odd")

    @flow.step(export=True)
    async def make() -> Any:
        return {"lock": threading.Lock(), "nan": float("nan")}

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        value = await run.result(timeout=10)
    assert value["nan"] == "NaN"
    assert value["lock"]["__type__"] == "_thread.lock"
    assert "lock" in value["lock"]["__repr__"]


async def test_an_output_that_contains_itself_fails_the_step(client: Client) -> None:
    flow = Workflow("knot")

    @flow.step
    async def tie() -> Any:
        knot: list[Any] = []
        knot.append(knot)
        return knot

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed, match="contains itself"):
            await run.result(timeout=10)


async def test_an_output_over_the_cap_fails_the_step_for_good_and_says_what_to_do(settings: Settings) -> None:
    flow = Workflow("large")

    @flow.step(retry=5)
    async def make() -> str:
        return "x" * 3_000

    async with Client(settings=settings.model_copy(update={"max_payload_bytes": 2_048})) as client:
        async with Worker(client, [flow]):
            run = await client.submit(flow)
            with pytest.raises(
                RunFailed, match=r"output of step 'make' is 3,002 bytes, over the limit of 2,048.*reference"
            ):
                await run.result(timeout=10)
        assert (await types_of(client, run.id)).count("StepFailed") == 1
        await assert_consistent(client.backend)


def exits() -> None:
    raise SystemExit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


def cancels() -> None:
    raise asyncio.CancelledError("mine")


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("body", [exits, interrupts, cancels])
async def test_a_body_that_tries_to_end_the_worker_only_fails_itself(
    client: Client, body: Callable[[], None], kind: str
) -> None:
    flow = Workflow("rude")
    polite = Workflow("polite", output=int)

    async def end() -> None:
        body()

    def end_plainly() -> None:
        body()

    flow.step(end if kind == "async" else end_plainly)

    @polite.step(export=True)
    async def one() -> int:
        return 1

    async with Worker(client, [flow, polite]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=10)
        assert caught.value.error_name in ("SystemExit", "KeyboardInterrupt", "CancelledError")
        assert await (await client.submit(polite)).result(timeout=10) == 1


async def test_an_exception_that_cannot_be_shown_still_fails_the_step(client: Client) -> None:
    class Unshowable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    flow = Workflow("mute")

    @flow.step
    async def fail() -> None:
        raise Unshowable

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=10)
    assert caught.value.error_name == "Unshowable"


async def test_input_that_does_not_fit_the_code_fails_the_step(client: Client) -> None:
    old = Workflow("drift", input=dict)

    @old.step
    async def read(order: dict) -> None: ...

    new = Workflow("drift", input=Order)

    def code() -> Callable[..., Any]:
        async def read(order: Order) -> None: ...

        return read

    new.step(code())

    run = await client.submit(old, {"id": "o-1"})
    async with Worker(client, [new]):
        with pytest.raises(RunFailed, match="cents"):
            await run.result(timeout=10)
