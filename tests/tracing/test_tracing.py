"""Spans of submissions and attempts, as the SDK's exporter in memory sees them."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import redisflow.sync
from redisflow import Client, Retry, RunFailed, Settings, Skip, StepContext, Worker, Workflow
from redisflow.worker.capture import JsonFormatter, StepFilter
from tests.cli.conftest import environment
from tests.conftest import assert_consistent
from tests.tracing.spans import id_of, named, trace_of

ROOT = Path(__file__).parent.parent.parent


flow = Workflow("shop", input=dict)


@flow.step(retry=Retry(attempts=3, delay="1ms"))
async def pay(input: dict, ctx: StepContext) -> str:
    if ctx.attempt < input["works_at"]:
        raise ConnectionError("the bank is away")
    return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)


@flow.step
def thank(pay: str) -> None:
    current = trace.get_current_span().get_span_context()
    if current.is_valid and trace.format_trace_id(current.trace_id) == pay:
        raise Skip("in a thread, and in the trace too")
    raise AssertionError(f"not in trace {pay}")


async def run_one(client: Client, works_at: int = 1) -> str:
    """Run the workflow to its end; a failure of it is an end."""
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"works_at": works_at})
        await asyncio.gather(run.result(timeout=20), return_exceptions=True)
    return run.id


async def test_steps_join_the_trace_of_who_submits(client: Client, spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        run_id = await run_one(client)
    (sent,), (paid,), (thanked,), (ran,) = (
        named(spans, name) for name in ("send shop", "process shop.pay", "process shop.thank", "run shop")
    )
    assert {trace_of(span) for span in (sent, paid, thanked, ran)} == {caller.get_span_context().trace_id}
    assert sent.parent is not None
    assert sent.parent.span_id == caller.get_span_context().span_id
    for span, parent in ((ran, sent), (paid, ran), (thanked, ran)):
        assert span.parent is not None
        assert span.parent.span_id == id_of(parent)
    assert (sent.kind, paid.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert dict(sent.attributes or {}) == {
        "messaging.system": "redisflow", "messaging.operation.type": "send", "messaging.operation.name": "submit",
        "messaging.destination.name": "shop", "messaging.message.conversation_id": run_id,
        "redisflow.workflow": "shop", "redisflow.run.id": run_id,
    }  # fmt: skip
    assert dict(paid.attributes or {}) == {
        "messaging.system": "redisflow", "messaging.operation.type": "process", "messaging.operation.name": "process",
        "messaging.destination.name": "shop", "messaging.message.id": f"{run_id}:pay:1",
        "messaging.message.conversation_id": run_id, "redisflow.workflow": "shop", "redisflow.run.id": run_id,
        "redisflow.step.id": "pay", "redisflow.step.attempt": 1, "redisflow.outcome": "completed",
    }  # fmt: skip
    assert (thanked.attributes or {})["redisflow.outcome"] == "skipped"
    assert paid.status.status_code == thanked.status.status_code == StatusCode.UNSET


async def test_attempts_link_to_the_ones_before_whichever_worker_had_them(
    client: Client, spans: InMemorySpanExporter
) -> None:
    run = await client.submit(flow, {"works_at": 9})
    async with Worker(client, [flow], concurrency=1), Worker(client, [flow], concurrency=1):
        with pytest.raises(RunFailed):
            await run.result(timeout=20)
    attempts = named(spans, "process shop.pay")
    ids = [span.get_span_context().span_id for span in attempts]  # type: ignore[union-attr]
    assert [[link.context.span_id for link in span.links] for span in attempts] == [[], ids[:1], ids[:2]]
    for number, span in enumerate(attempts, 1):
        assert (span.attributes or {})["redisflow.step.attempt"] == number
        assert (span.attributes or {})["redisflow.outcome"] == "failed"
        assert (span.attributes or {})["error.type"] == "ConnectionError"
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]
    failure = next(wire for wire in await client.backend.load_wire_events(run.id) if wire["type"] == "StepFailed")
    assert not {"tc", "traceparent"} & failure.keys()


async def test_a_submission_of_many_is_one_span(client: Client, spans: InMemorySpanExporter) -> None:
    runs = await client.submit_many(flow, [{"works_at": 1}] * 3)
    (sent,) = named(spans, "send shop")
    assert (sent.attributes or {})["messaging.batch.message_count"] == 3
    states = await client.backend.get_runs([run.id for run in runs])
    assert len({(state.metadata or {})["traceparent"] for state in states if state}) == 1


async def test_metadata_of_ones_own_stays(client: Client, spans: InMemorySpanExporter) -> None:
    run = await client.submit(flow, {"works_at": 1}, metadata={"who": "ada"})
    state = await client.backend.get_run(run.id)
    assert state is not None
    assert (state.metadata or {}).keys() == {"who", "traceparent"}


async def test_a_foreign_traceparent_that_is_none_begins_a_trace(client: Client, spans: InMemorySpanExporter) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"works_at": 1}, metadata={"traceparent": 7, "tracestate": "x=y"})
        await asyncio.gather(run.result(timeout=20), return_exceptions=True)
    (paid,), (ran,) = named(spans, "process shop.pay"), named(spans, "run shop")
    assert ran.parent is None
    assert paid.parent is not None
    assert (paid.parent.trace_id, paid.parent.span_id) == (trace_of(ran), id_of(ran))


async def test_without_a_provider_nothing_is_added(client: Client) -> None:
    run = await client.submit(flow, {"works_at": 1})
    state = await client.backend.get_run(run.id)
    assert state is not None
    assert state.metadata is None


def test_without_the_api_all_works(settings: Settings, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['opentelemetry'] = None\n"
        "import asyncio\nfrom redisflow import Client, Worker, tracing\nfrom redisflow import task\n"
        "@task\ndef hello() -> str: return 'hello'\n"
        "async def main():\n"
        "    async with Client() as rf, Worker(rf, [hello]):\n"
        "        run = await rf.submit(hello)\n"
        "        state = await rf.backend.get_run(run.id)\n"
        "        print(await run.result(timeout=20), state.metadata, tracing.enabled(), tracing.current_ids())\n"
        "asyncio.run(main())\n"
    )
    env = environment(REDISFLOW_URL=str(settings.url), REDISFLOW_NAMESPACE=settings.namespace)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout == "hello None False None\n", done.stderr


def test_a_provider_named_by_the_environment_is_one(tmp_path: Path) -> None:
    code = "from redisflow import tracing; print(tracing.enabled())"
    env = environment(OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout == "True\n", done.stderr


async def test_log_records_carry_the_trace(client: Client, spans: InMemorySpanExporter) -> None:
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    logged = Workflow("logged")

    @logged.step
    async def say(ctx: StepContext) -> None:
        ctx.logger.warning("here")

    handler = Keep()
    handler.addFilter(StepFilter())
    logging.getLogger("redisflow.step").addHandler(handler)
    try:
        async with Worker(client, [logged]):
            await (await client.submit(logged)).result(timeout=20)
    finally:
        logging.getLogger("redisflow.step").removeHandler(handler)
    (said,) = named(spans, "process logged.say")
    context = said.get_span_context()
    assert context is not None
    assert [(line["message"], line["trace_id"], line["span_id"]) for line in lines] == [
        ("here", trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id))
    ]


async def test_a_stopped_attempt_ends_its_span(client: Client, spans: InMemorySpanExporter) -> None:
    begun = asyncio.Event()
    slow = Workflow("slow")

    @slow.step
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with Worker(client, [slow]):
        run = await client.submit(slow)
        await asyncio.wait_for(begun.wait(), 20)
        await run.cancel()
    (waited,) = named(spans, "process slow.wait")
    assert (waited.attributes or {})["redisflow.outcome"] == "stopped"


async def test_from_a_request_of_fastapi_to_the_last_step(client: Client, spans: InMemorySpanExporter) -> None:
    app = fastapi.FastAPI()

    @app.middleware("http")
    async def traced(request: fastapi.Request, call_next: Any) -> Any:
        name, tracer = f"{request.method} {request.url.path}", trace.get_tracer("server")
        with tracer.start_as_current_span(name, context=extract(request.headers), kind=SpanKind.SERVER):
            return await call_next(request)

    @app.post("/orders")
    async def order() -> dict[str, str]:
        return {"run": (await client.submit(flow, {"works_at": 2})).id}

    browser = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "congo=t61rcWkgMzE",
    }
    transport = httpx.ASGITransport(app=app)
    async with Worker(client, [flow]), httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        answer = (await http.post("/orders", headers=browser)).json()
        await client.result(answer["run"], timeout=20)
    found = spans.get_finished_spans()
    ours = [
        span.name for span in found if span.instrumentation_scope and span.instrumentation_scope.name == "redisflow"
    ]
    assert sorted(ours) == ["process shop.pay", "process shop.pay", "process shop.thank", "run shop", "send shop"]
    assert "POST /orders" in {span.name for span in found}
    assert {f"{trace_of(span):032x}" for span in found} == {"0af7651916cd43dd8448eb211c80319c"}
    (thanked,) = named(spans, "process shop.thank")
    assert thanked.get_span_context().trace_state.get("congo") == "t61rcWkgMzE"  # type: ignore[union-attr]


def test_the_blocking_client_passes_the_context_on(settings: Settings, spans: InMemorySpanExporter) -> None:
    with (
        redisflow.sync.Client(settings=settings) as client,
        trace.get_tracer("test").start_as_current_span("caller") as caller,
    ):
        client.submit(flow, {"works_at": 1})
    (sent,) = named(spans, "send shop")
    assert trace_of(sent) == caller.get_span_context().trace_id


async def test_keys_stay_what_the_events_imply(client: Client, spans: InMemorySpanExporter) -> None:
    await run_one(client, works_at=2)
    await assert_consistent(client.backend)
