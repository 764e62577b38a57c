"""What tests ask of exported spans."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """Spans of a name by their start."""
    found = [span for span in exporter.get_finished_spans() if span.name == name]
    return sorted(found, key=lambda span: span.start_time or 0)


def trace_of(span: ReadableSpan) -> int:
    """Its trace."""
    return span.get_span_context().trace_id  # type: ignore[union-attr,no-any-return]


def id_of(span: ReadableSpan) -> int:
    """Its own id."""
    return span.get_span_context().span_id  # type: ignore[union-attr,no-any-return]
