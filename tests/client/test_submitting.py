"""Submitting runs: options, slugs, batches, and finding the runs again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from redisflow import (
    Client,
    InvalidArgument,
    InvalidInput,
    PayloadTooLarge,
    RunExists,
    RunNotFound,
    ServerUnavailable,
    Settings,
    Submission,
    Worker,
    Workflow,
    WorkflowNotFound,
    task,
)
from tests.conftest import assert_consistent


class Line(BaseModel):
    sku: str
    count: int = 1


class Order(BaseModel):
    id: str
    lines: list[Line]


def shop() -> Workflow[Order, int]:
    flow = Workflow("shop", input=Order, output=int)

    @flow.step(export=True)
    async def count(order: Order) -> int:
        return sum(line.count for line in order.lines)

    return flow


def plain(slug: str = "plain") -> Workflow[Any, Any]:
    flow = Workflow(slug)

    @flow.step
    async def touch() -> None: ...

    return flow


ORDER = Order(id="o-1", lines=[Line(sku="a", count=2), Line(sku="b")])


async def test_all_options_are_kept(client: Client) -> None:
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    run = await client.submit(
        shop(),
        ORDER,
        key="k-1",
        priority=-7,
        tags=["eu", "vip"],
        at=at,
        timeout="90s",
        metadata={"by": "me", "n": [1]},
    )
    state = await run.status()
    assert run.is_new
    assert (state.workflow_slug, state.status, state.priority, state.idempotency_key) == (
        "shop",
        "pending",
        -7,
        "k-1",
    )
    assert state.available_at == at.timestamp() * 1e6
    assert (state.timeout, state.metadata) == (90_000_000, {"by": "me", "n": [1]})
    assert set(state.tags or ()) == {"eu", "vip"}
    assert Order.model_validate_json(state.input or "") == ORDER


async def test_a_delay_counts_from_the_servers_now(client: Client) -> None:
    state = await (await client.submit(plain(), delay=timedelta(minutes=2))).status()
    assert state.available_at - state.created_at == 120_000_000


async def test_a_key_gives_the_first_run_again(client: Client) -> None:
    flow = shop()
    first = await client.submit(flow, ORDER, key="o-1")
    again = await client.submit(flow, Order(id="other", lines=[]), key="o-1")
    assert (again.id, again.is_new) == (first.id, False)
    assert (await client.submit(flow, ORDER, key="o-2")).id != first.id


async def test_many_submitters_of_one_key_make_one_run(client: Client) -> None:
    flow = plain()
    runs = await asyncio.gather(*(client.submit(flow, key="same") for _ in range(20)))
    assert len({run.id for run in runs}) == 1
    assert [run.is_new for run in runs].count(True) == 1


async def test_an_id_of_ones_own_is_taken_once(client: Client) -> None:
    run = await client.submit(plain(), run_id="mine-1")
    assert run.id == "mine-1"
    with pytest.raises(RunExists, match="mine-1"):
        await client.submit(plain(), run_id="mine-1")


async def test_submit_many_keeps_the_order_and_tells_duplicates(client: Client) -> None:
    flow = shop()
    items = [Submission(Order(id=str(n), lines=[]), key=f"k{n % 3}", tags=[f"n{n}"]) for n in range(6)]
    runs = await client.submit_many(flow, [*items, ORDER])
    assert [run.is_new for run in runs] == [True] * 3 + [False] * 3 + [True]
    assert [run.id for run in runs[:3]] == [run.id for run in runs[3:6]]
    assert (await runs[4].status()).tags == ("n1",)
    assert (await client.runs(limit=1))[1] == 4


async def test_submit_many_of_hundreds(client: Client) -> None:
    flow = shop()
    runs = await client.submit_many(flow, [Order(id=str(n), lines=[]) for n in range(600)])
    assert len({run.id for run in runs}) == 600
    assert Order.model_validate_json((await runs[417].status()).input or "").id == "417"
    assert await client.submit_many(flow, []) == []


async def test_one_wrong_item_and_nothing_is_written(client: Client) -> None:
    flow = shop()
    with pytest.raises(InvalidArgument, match="priority=101"):
        await client.submit_many(flow, [ORDER, Submission(ORDER, priority=101)])
    with pytest.raises(InvalidInput, match=r"lines\.0\.sku"):
        await client.submit_many(flow, [ORDER, {"id": "o-2", "lines": [{}]}])  # type: ignore[list-item]
    assert (await client.runs())[1] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"priority": 1000}, "from -100 to 100"),
        ({"delay": "soon"}, "not a duration"),
        ({"delay": -1}, "negative"),
        ({"timeout": 0}, "more than 0"),
        ({"tags": "eu"}, "a list of words"),
        ({"tags": ["a b"]}, "without spaces"),
        ({"key": ""}, "1 to 512"),
        ({"run_id": "a b"}, "run_id"),
    ],
)
async def test_wrong_arguments_are_named(client: Client, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await client.submit(plain(), **options)
    assert (await client.runs())[1] == 0


async def test_an_input_over_the_cap_says_what_to_do(settings: Settings) -> None:
    async with Client(settings=settings.model_copy(update={"max_payload_bytes": 1_024})) as client:
        flow = shop()
        big = Order(id="x" * 1_100, lines=[])
        with pytest.raises(PayloadTooLarge, match=r"input of 'shop'.*limit of 1,024.*reference"):
            await client.submit(flow, big)
        await client.submit(flow, Order(id="small", lines=[]))
        with pytest.raises(PayloadTooLarge):
            await client.submit("shop", big.model_dump())
        await assert_consistent(client.backend)


async def test_by_slug_the_registered_schema_is_checked_with_field_paths(client: Client) -> None:
    await client.backend.register_plan(shop().plan)
    run = await client.submit("shop", {"id": "o-1", "lines": [{"sku": "a"}]})
    assert (await run.status()).workflow_slug == "shop"
    with pytest.raises(InvalidInput) as caught:
        await client.submit("shop", {"id": 7, "lines": [{"sku": "a"}, {"sku": "b", "count": "two"}]})
    assert [path for path, _ in caught.value.problems] == ["id", "lines.1.count"]
    with pytest.raises(InvalidInput, match=r"\$: is required"):
        await client.submit("shop")
    with pytest.raises(InvalidInput, match=r"\$: 'lines' is a required property"):
        await client.submit("shop", {"id": "o-1"})
    assert (await client.runs())[1] == 1


async def test_by_slug_the_result_is_plain(client: Client) -> None:
    async with Worker(client, [shop()]):
        run = await client.submit("shop", ORDER.model_dump())
        assert await run.result(timeout=10) == 3


async def test_an_unknown_slug_names_those_that_are_known(client: Client) -> None:
    with pytest.raises(WorkflowNotFound, match="none is registered"):
        await client.submit("shop")
    await client.backend.register_plan(shop().plan)
    with pytest.raises(WorkflowNotFound, match="known: shop"):
        await client.submit("chop")


async def test_a_task_is_submitted_like_a_workflow(client: Client) -> None:
    @task
    async def double(number: int) -> int:
        return number * 2

    async with Worker(client, [double]):
        run = await client.submit(double, 21)
        assert await run.result(timeout=10) == 42


async def test_namespaces_know_nothing_of_each_other(client: Client, settings: Settings) -> None:
    run = await client.submit(plain(), run_id="same", key="same")
    other_settings = settings.model_copy(update={"namespace": settings.namespace + "-b"})
    async with Client(settings=other_settings) as other:
        with pytest.raises(RunNotFound):
            await other.status(run.id)
        with pytest.raises(WorkflowNotFound):
            await other.submit("plain")
        twin = await other.submit(plain(), run_id="same", key="same")
        assert twin.is_new
        await twin.cancel()
        assert (await run.status()).status == "pending"
        async with Worker(client, [plain()]):
            await run.result(timeout=10)
        assert (await twin.status()).status == "cancelled"
        await assert_consistent(other.backend)


async def test_listing_filters_and_pages(client: Client) -> None:
    one, two = plain("one"), plain("two")
    ids = [
        (await client.submit(one, run_id=f"a{n}", tags=["even" if n % 2 == 0 else "odd", "all"])).id for n in range(6)
    ]
    other = await client.submit(two, run_id="b", tags=["all"])
    for run_id in ids[:2]:
        await client.cancel(run_id)

    async def listed(*args: Any, **options: Any) -> tuple[list[str], int]:
        states, total = await client.runs(*args, **options)
        return [state.run_id for state in states], total

    assert await listed() == ([other.id, *reversed(ids)], 7)
    assert await listed("one") == (ids[::-1], 6)
    assert await listed("one", limit=2, offset=1) == ([ids[4], ids[3]], 6)
    assert await listed("one", limit=2, offset=5) == ([ids[0]], 6)
    assert await listed("one", offset=6) == ([], 6)
    assert await listed(status=["cancelled"]) == ([ids[1], ids[0]], 2)
    assert await listed(status=["cancelled", "pending"], limit=1) == ([other.id], 7)
    assert await listed(tags=["all"]) == ([other.id, *reversed(ids)], 7)
    assert await listed(tags=["all", "even"]) == ([ids[4], ids[2], ids[0]], 3)
    assert await listed("one", tags=["even"], status=["pending"], limit=1) == ([ids[4]], 2)
    assert await listed("nothing") == ([], 0)
    assert len((await client.runs(limit=None))[0]) == 7


async def test_a_client_that_is_not_open_says_so(settings: Settings) -> None:
    client = Client(settings=settings)
    with pytest.raises(ServerUnavailable, match="async with Client"):
        await client.submit(plain())
    await client.open()
    await client.open()
    await client.close()
    await client.close()
