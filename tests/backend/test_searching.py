"""Pages of runs by id, time, status and tags: what is found is what a look at every run finds, whatever the pages and budgets."""

from __future__ import annotations

import pytest

from redisflow import Client, Submission, Task, task
from redisflow.model.errors import InvalidArgument
from redisflow.model.states import RunState


@task
def one() -> None:
    """Of one workflow."""


@task
def two() -> None:
    """Of another."""


async def fill(client: Client) -> list[RunState]:
    """730 runs of two workflows in some states and tags, 131 of one time; the newest first."""
    flows: list[Task[..., object, object]] = [one, two]
    for start in range(0, 600, 150):
        await client.submit_many(
            flows[start // 150 % 2],
            [
                Submission(None, tags=["even"] if n % 2 == 0 else ["odd", "third"] if n % 3 == 0 else [])
                for n in range(start, start + 150)
            ],
        )
    everything = (await client.runs(limit=None))[0]
    for run in everything[::7]:
        await client.cancel(run.run_id)
    for n in range(130):
        await client.backend.copy_entire_run("one", everything[-1].run_id, f"copy.{n:04}")
    return (await client.runs(limit=None))[0]


async def pages_of(client: Client, limit: int, budget: int, **filters: object) -> list[str]:
    """All pages behind each other, with their marks checked."""
    found: list[str] = []
    cursor, looked = None, 0
    while True:
        page = await client.backend.search_ids(limit=limit, budget=budget, cursor=cursor, **filters)  # type: ignore[arg-type]
        assert len(page.ids) <= limit
        assert looked <= page.looked_at <= page.among
        found, looked = found + page.ids, page.looked_at
        if page.cursor is None:
            assert page.looked_at == page.among
            return found
        cursor = str(page.cursor)


@pytest.mark.parametrize(("limit", "budget"), [(50, 5_000), (7, 100), (400, 1)])
async def test_pages_hold_what_fits_in_order_and_nothing_twice(client: Client, limit: int, budget: int) -> None:
    runs = await fill(client)
    ids = [run.run_id for run in runs]
    assert len({run.created_at for run in runs}) == len(runs) - 130, "copies share a time"
    middle = runs[300].created_at
    prefix = ids[5][:1]

    def fitting(wanted: object) -> list[str]:
        return [run.run_id for run in runs if wanted(run)]  # type: ignore[operator]

    for filters, wanted in (
        ({}, lambda run: True),
        ({"prefix": prefix}, lambda run: run.run_id.startswith(prefix)),
        ({"prefix": ids[9][:7]}, lambda run: run.run_id.startswith(ids[9][:7])),
        ({"prefix": "?"}, lambda run: False),
        ({"prefix": "copy.012"}, lambda run: run.run_id.startswith("copy.012")),
        ({"tags": ["even"], "start_us": middle}, lambda run: run.created_at >= middle and "even" in (run.tags or ())),
        ({"tags": ["odd", "third"], "end_us": middle, "statuses": ["cancelled"]},
         lambda run: run.created_at <= middle and "third" in (run.tags or ()) and run.status == "cancelled"),
        ({"workflow_slug": "two", "statuses": ["pending"], "prefix": prefix},
         lambda run: run.workflow_slug == "two" and run.status == "pending" and run.run_id.startswith(prefix)),
        ({"tags": ["none"]}, lambda run: False),
    ):  # fmt: skip
        assert await pages_of(client, limit, budget, **filters) == fitting(wanted), filters


async def test_a_whole_id_is_looked_up(client: Client) -> None:
    run = (await client.submit(one, run_id="order-1")).id
    await client.submit(one, run_id="order-11")
    assert await client.backend.search_ids(prefix="order-1") == ([run], None, 1, 1)
    assert len((await client.backend.search_ids(prefix="order-")).ids) == 2


async def test_runs_that_come_meanwhile_move_no_page(client: Client) -> None:
    before = [run.id for run in reversed([await client.submit(one) for _ in range(10)])]
    first = await client.backend.search_ids(limit=4)
    await client.submit_many(two, [None] * 5)
    await client.cancel(before[2])
    second = await client.backend.search_ids(limit=4, cursor=str(first.cursor))
    assert first.ids + second.ids == before[:8]


@pytest.mark.parametrize("cursor", ["x", "12", "-a", "1-?", "9" * 20 + "-a"])
async def test_a_cursor_that_is_none_is_refused(client: Client, cursor: str) -> None:
    with pytest.raises(InvalidArgument, match="cursor"):
        await client.backend.search_ids(cursor=cursor)
