"""The span of a run as a whole, attempts that nobody was left to tell of, and processes of isolated steps."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode

from redisflow import Client, Reclaimer, Retry, RunFailed, Settings, Skip, StepContext, Worker, Workflow
from redisflow.backend.redis.traces import traced_runs
from redisflow.worker.traces import Together
from tests.conftest import eventually
from tests.tracing.isolated import flow as apart
from tests.tracing.spans import id_of, named, trace_of

wide = Workflow("wide", input=dict, on_error="finish")


@wide.step
async def root() -> None:
    """Every leaf follows at once."""


@wide.step
async def left(input: dict, root: None) -> None:
    if input.get("fails"):
        raise ConnectionError("the left is away")


@wide.step
async def right(input: dict, root: None) -> None:
    if input.get("skips"):
        raise Skip("not today")


@wide.step
async def behind(right: None) -> None:
    """Skipped where `right` is."""


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def times(client: Client, run_id: str) -> tuple[int, int]:
    """When a run was submitted and ended, in ns."""
    state = await client.status(run_id)
    assert state.completed_at is not None
    return state.created_at * 1000, state.completed_at * 1000


@pytest.mark.parametrize(
    ("given", "outcome"), [({}, "completed"), ({"fails": True}, "failed"), ({"skips": True}, "completed")]
)
async def test_a_run_has_one_span_however_many_workers_end_its_steps(
    client: Client, spans: InMemorySpanExporter, given: dict[str, bool], outcome: str
) -> None:
    async with Worker(client, [wide], concurrency=2), Worker(client, [wide], concurrency=2):
        runs = await client.submit_many(wide, [given] * 20)
        await asyncio.gather(*(run.result(timeout=20) for run in runs), return_exceptions=True)
    ran = {attributes(span)["redisflow.run.id"]: span for span in named(spans, "run wide")}
    assert len(named(spans, "run wide")) == 20
    (sent,) = named(spans, "send wide")
    for run in runs:
        span = ran[run.id]
        assert span.parent is not None
        assert (span.parent.span_id, trace_of(span)) == (id_of(sent), trace_of(sent))
        assert (span.start_time, span.end_time) == await times(client, run.id)
        assert (attributes(span)["redisflow.outcome"], attributes(span)["redisflow.run.attempt"]) == (outcome, 1)
        failed = outcome == "failed"
        assert (span.status.status_code is StatusCode.ERROR, span.status.description) == (
            failed, "the left is away" if failed else None
        )  # fmt: skip
    for name in ("process wide.root", "process wide.left", "process wide.right"):
        found = named(spans, name)
        assert len(found) == 20
        for step in found:
            assert step.parent is not None
            assert step.parent.span_id == id_of(ran[attributes(step)["redisflow.run.id"]])


async def test_without_a_context_of_the_submitter_a_run_is_a_trace(
    settings: Settings, client: Client, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = trace.get_tracer_provider()
    with monkeypatch.context() as before:
        before.setattr("opentelemetry.trace._TRACER_PROVIDER", None)
        run = await client.submit(wide, {})
    assert trace.get_tracer_provider() is provider
    async with Worker(client, [wide]):
        await run.result(timeout=20)
    (ran,) = named(spans, "run wide")
    assert ran.parent is None
    assert {trace_of(span) for span in spans.get_finished_spans()} == {trace_of(ran)}
    assert len(spans.get_finished_spans()) == 5


async def test_a_retried_run_has_a_span_for_each_attempt(client: Client, spans: InMemorySpanExporter) -> None:
    works = False
    flow = Workflow("again")

    @flow.step
    async def only() -> None:
        if not works:
            raise ConnectionError("away")

    async with Worker(client, [flow]):
        run = await client.submit(flow)
        with pytest.raises(RunFailed):
            await run.result(timeout=20)
        works = True
        await client.retry(run.id)
        await run.result(timeout=20)
    first, second = named(spans, "run again")
    assert [attributes(span)["redisflow.outcome"] for span in (first, second)] == ["failed", "completed"]
    assert id_of(first) != id_of(second)
    retried = next(w for w in await client.backend.load_wire_events(run.id) if w["type"] == "WorkflowRetryStarted")
    assert second.start_time == retried["timestampUs"] * 1000
    parents = [span.parent.span_id for span in named(spans, "process again.only") if span.parent]
    assert parents == [id_of(first), id_of(second)]


async def test_who_cancels_a_run_exports_its_span(client: Client, spans: InMemorySpanExporter) -> None:
    run = await client.submit(wide, {})
    assert (await run.cancel()).cancelled
    assert not (await run.cancel()).cancelled
    (ran,) = named(spans, "run wide")
    assert attributes(ran)["redisflow.outcome"] == "cancelled"
    assert (ran.start_time, ran.end_time) == await times(client, run.id)
    assert ran.status.status_code is StatusCode.UNSET


async def test_the_sweep_exports_the_span_of_a_run_past_its_deadline(
    client: Client, spans: InMemorySpanExporter
) -> None:
    run = await client.submit(wide, {}, timeout="1ms")
    sidecar = Reclaimer(client)

    async def over() -> bool:
        await sidecar.run_once()
        return (await run.status()).status == "failed"

    await eventually(over)
    (ran,) = named(spans, "run wide")
    assert ran.status.status_code is StatusCode.ERROR
    assert "within its timeout" in (ran.status.description or "")


crashy = Workflow("crashy", output=int)


@crashy.step(export=True, retry=Retry(attempts=3, crashes=1, delay="1ms"))
async def fragile(ctx: StepContext) -> int:
    return ctx.attempt


async def let_it_be_reclaimed(client: Client, run_id: str) -> int:
    """Claim the step as a worker that dies then, wait until the reclaimer takes it back; gives the lease."""
    claims: list[int] = []

    async def claimed() -> bool:
        claim = await client.backend.claim_step(run_id, "fragile", "gone.1")
        claims.extend([claim.lease] if claim else [])
        return bool(claims)

    await eventually(claimed)
    before = await reclaims(client, run_id)
    sidecar = Reclaimer(client)

    async def taken() -> bool:
        await sidecar.run_once()
        return await reclaims(client, run_id) > before

    await eventually(taken)
    return claims[0]


async def reclaims(client: Client, run_id: str) -> int:
    return sum(wire["type"] == "StepReclaimed" for wire in await client.backend.load_wire_events(run_id))


QUICK = {"stale_after": 60_000, "heartbeat_interval": 20_000, "reclaim_interval": 20_000}


async def test_the_reclaimer_tells_of_an_attempt_whose_worker_died(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    async with Client(settings=settings.model_copy(update=QUICK)) as client:
        run = await client.submit(crashy)
        lease = await let_it_be_reclaimed(client, run.id)
        async with Worker(client, [crashy]):
            assert await run.result(timeout=20) == 2
    dead, alive = named(spans, "process crashy.fragile")
    assert attributes(dead)["redisflow.outcome"] == "reclaimed"
    assert attributes(dead)["redisflow.worker.id"] == "gone.1"
    assert dead.status.status_code is StatusCode.ERROR
    assert (dead.start_time, attributes(dead)["redisflow.step.attempt"]) == (lease * 1000, 1)
    assert dead.end_time is not None
    assert alive.start_time is not None
    assert lease * 1000 < dead.end_time
    (link,) = alive.links
    assert (link.context.trace_id, link.context.span_id) == (trace_of(dead), id_of(dead))
    (ran,) = named(spans, "run crashy")
    for span in (dead, alive):
        assert span.parent is not None
        assert span.parent.span_id == id_of(ran)


async def test_the_reclaimer_exports_the_span_of_a_run_that_ends_by_it(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    async with Client(settings=settings.model_copy(update=QUICK)) as client:
        run = await client.submit(crashy)
        for _ in range(2):
            await let_it_be_reclaimed(client, run.id)
        assert (await run.status()).status == "failed"
    (ran,) = named(spans, "run crashy")
    assert attributes(ran)["redisflow.outcome"] == "failed"
    assert "stopped sending heartbeats" in (ran.status.description or "")
    assert len(named(spans, "process crashy.fragile")) == 2


async def test_runs_that_are_wanted_at_once_are_read_in_few_round_trips(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = await client.submit_many(wide, [{"n": n} for n in range(50)])
    await client.cancel(runs[0].id)
    trips, pipeline = [], client.backend.client.pipeline

    def counted(**options: Any) -> Any:
        trips.append(1)
        return pipeline(**options)

    monkeypatch.setattr(client.backend.client, "pipeline", counted)
    together = Together(lambda ids: traced_runs(client.backend, ids, {}))
    found = await asyncio.gather(*(together.get(run_id) for run_id in [*(run.id for run in runs), "none.such"]))
    assert [one[0].id for one in found if one] == [run.id for run in runs]
    assert [one and one[1] for one in found] == [True] + [False] * 49 + [None]
    assert len(trips) <= 2


async def test_the_sampler_decides_for_a_run_and_all_its_steps(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ParentBased(TraceIdRatioBased(0.5)))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    runs = await client.submit_many(wide, [{}] * 40)
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    async with Worker(client, [wide]):
        await asyncio.gather(*(run.result(timeout=20) for run in runs))
    by_run: dict[Any, int] = {}
    for span in exporter.get_finished_spans():
        by_run[attributes(span)["redisflow.run.id"]] = by_run.get(attributes(span)["redisflow.run.id"], 0) + 1
    assert set(by_run.values()) == {5}
    assert 0 < len(by_run) < 40
    provider.shutdown()


async def test_spans_of_an_isolated_body_are_children_of_its_attempt(
    client: Client, spans: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SPANS_OF_CHILD", str(tmp_path / "spans"))
    async with Worker(client, [apart]):
        run = await client.submit(apart)
        with pytest.raises(RunFailed):
            await run.result(timeout=30)
    told = {span["name"]: span for span in map(json.loads, (tmp_path / "spans").read_text().splitlines())}
    assert len(told) == 2
    for name, step in (("a query of the body", "work"), ("a failure of the body", "fails")):
        (attempt,) = named(spans, f"process apart.{step}")
        assert told[name]["parent_id"] == f"0x{id_of(attempt):016x}"
        assert told[name]["context"]["trace_id"] == f"0x{trace_of(attempt):032x}"
