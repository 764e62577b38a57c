"""Lists of runs: newest first, filters, totals, pages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend, listing
from redisflow.backend.types import Submission
from redisflow.model.errors import InvalidArgument
from redisflow.model.workflow import Plan, PlanStep
from redisflow.settings import Settings
from tests.conftest import TestServer, assert_consistent


def plan(slug: str) -> Plan:
    return Plan(slug=slug, name=slug, steps=(PlanStep(id="only", name="only", queue=slug),))


@pytest.fixture(params=["one partition", "three", "Cluster"])
async def backend(
    settings: Settings, cluster_server: TestServer, request: pytest.FixtureRequest
) -> AsyncIterator[RedisBackend]:
    update: dict[str, Any] = {"partitions": 1 if request.param == "one partition" else 3}
    if request.param == "Cluster":
        update["url"] = cluster_server.url
    opened = RedisBackend(settings.model_copy(update=update))
    await opened.initialize()
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


async def fill(backend: RedisBackend, count: int = 60) -> list[dict[str, Any]]:
    """Runs of two workflows with tags, some cancelled; what is to be found of each."""
    made = []
    for number in range(count):
        slug = "even" if number % 2 == 0 else "odd"
        tags = [name for name, every in (("third", 3), ("fifth", 5)) if number % every == 0]
        result = (await backend.submit(plan(slug), [Submission(tags=tags)]))[0]
        status = "pending"
        if number % 4 == 0:
            status = (await backend.cancel_run(result.run_id)).status
        made.append({"id": result.run_id, "slug": slug, "tags": set(tags), "status": status})
    return made[::-1]


def chosen(made: list[dict[str, Any]], slug: str | None, status: list[str], tags: list[str]) -> list[str]:
    return [
        run["id"] for run in made
        if (slug in (None, run["slug"])) and (not status or run["status"] in status) and run["tags"].issuperset(tags)
    ]  # fmt: skip


FILTERS: list[tuple[str | None, list[str], list[str]]] = [
    (None, [], []),
    ("even", [], []),
    (None, ["cancelled"], []),
    ("even", ["cancelled", "pending"], []),
    ("odd", ["cancelled"], []),
    (None, [], ["third"]),
    (None, [], ["third", "fifth", "third"]),
    ("even", ["pending"], ["fifth"]),
    (None, ["pending", "cancelled"], ["third"]),
    (None, ["completed", "claimed"], ["third"]),
    (None, ["claimed"], []),
    (None, ["pending"], ["unknown"]),
    ("unknown", [], []),
    (None, ["pending", "running", "completed", "failed", "cancelled"], ["third"]),
]


@pytest.mark.parametrize("small", [False, True], ids=["", "small chunks"])
async def test_every_filter_and_every_page(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, small: bool) -> None:
    if small:  # the ways that large lists go
        for name, value in (("NEAR", 2), ("FEW", 0), ("CHUNK", 3), ("ABREAST", 2)):
            monkeypatch.setattr(listing, name, value)
    made = await fill(backend)
    for slug, status, tags in FILTERS:
        expected = chosen(made, slug, status, tags)
        runs, total = await backend.list_runs(slug, status, tags)
        assert ([run.run_id for run in runs], total) == (expected, len(expected)), (slug, status, tags)
        for limit, offset in ((7, 0), (7, 7), (5, 23), (3, 58), (5, 100), (0, 0), (None, 11)):
            runs, total = await backend.list_runs(slug, status, tags, limit, offset)
            page = expected[offset:] if limit is None else expected[offset : offset + limit]
            assert ([run.run_id for run in runs], total) == (page, len(expected)), (slug, status, tags, limit, offset)


async def test_few_matches_are_taken_at_once(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await fill(backend)
    monkeypatch.setattr(listing, "FEW", 8)
    runs, total = await backend.list_runs(None, ["cancelled"], ["third", "fifth"], 1)
    expected = chosen(made, None, ["cancelled"], ["third", "fifth"])
    assert ([run.run_id for run in runs], total) == (expected[:1], len(expected))


async def test_a_state_says_what_the_filter_asked(backend: RedisBackend) -> None:
    await fill(backend, 10)
    runs, _ = await backend.list_runs("even", ["cancelled"], ["third"])
    assert runs
    assert {(run.workflow_slug, run.status) for run in runs} == {("even", "cancelled")}
    assert all("third" in (run.tags or ()) for run in runs)


async def test_saved_runs_are_listed_without_a_workflow(backend: RedisBackend) -> None:
    made = await fill(backend, 2)
    started = {"version_id": "v", "workflow_attempt_number": 1, "has_input_schema": False, "has_input": False}
    await backend.save_workflow_start("saved", "s1", **started)
    await backend.save_run_submitted("other", "s2", version_id="v", available_at=1, tags=["third"])
    await backend.save_workflow_failed(
        "other",
        "s2",
        ValueError("no"),
        workflow_attempt_number=1,
        duration_us=1,
        completed_steps=0,
        failure_reason="timeout",
    )
    runs, total = await backend.list_runs()
    assert [run.run_id for run in runs] == ["s2", "s1", *(run["id"] for run in made)]
    assert total == 4
    assert [run.run_id for run in (await backend.list_runs(status=["running"]))[0]] == ["s1"]
    assert [run.run_id for run in (await backend.list_runs(status=["failed"], tags=["third"]))[0]] == ["s2"]
    assert await backend.list_active_workflows() == ["odd", "saved"]


async def test_pages_of_many_runs_neither_overlap_nor_leave_one_out(backend: RedisBackend) -> None:
    for slug in ("even", "odd"):
        await backend.submit(plan(slug), [Submission(tags=["x"]) for _ in range(700)])
    for tags in ([], ["x"]):
        seen: list[str] = []
        for offset in range(0, 1400, 350):
            runs, total = await backend.list_runs(None, ["pending", "running"], tags, 350, offset)
            assert total == 1400
            seen += [run.run_id for run in runs]
        assert len(set(seen)) == len(seen) == 1400


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"limit": -1}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": True}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": None}, "offset"),
        ({"offset": "1"}, "offset"),
        ({"status": ["done"]}, "status"),
        ({"status": "pending"}, "status"),
        ({"status": [None]}, "status"),
        ({"tags": "x"}, "tags"),
        ({"tags": [1]}, "tags"),
        ({"tags": [""]}, "tags"),
        ({"workflow_slug": ""}, "workflow_slug"),
        ({"workflow_slug": "a b"}, "workflow_slug"),
    ],
)
async def test_wrong_arguments_are_refused(backend: RedisBackend, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await backend.list_runs(**arguments)
    assert refused.value.argument == named
