"""A workflow whose isolated step makes spans; the module sets the provider, in the step's process alone."""

from __future__ import annotations

import os
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

from redisflow import Workflow

if path := os.environ.get("TEST_SPANS_OF_CHILD"):
    provider = TracerProvider()
    out = Path(path).open("a")  # noqa: SIM115 - open as long as the process
    exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

flow = Workflow("apart", on_error="finish")


@flow.step(isolate=True)
def work() -> None:
    with trace.get_tracer("body").start_as_current_span("a query of the body"):
        pass


@flow.step(isolate=True)
def fails() -> None:
    with trace.get_tracer("body").start_as_current_span("a failure of the body"):
        raise LookupError("nothing there")
