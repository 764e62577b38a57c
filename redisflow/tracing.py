"""OpenTelemetry (extra `otel`): the trace context of who submits travels in the run, so that its steps join the trace.

Only the API is used; which spans are made, and where they go, is the application's choice of provider. Without the API, or
without a provider, every function here does nothing, and nothing is added to a run. The context is kept in the run's metadata under
the names of W3C Trace Context.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _installed = False
else:
    _installed = True
    _W3C = TraceContextTextMapPropagator()

SYSTEM = "redisflow"
NAMES = ("traceparent", "tracestate")
"""Names in a run's metadata."""


def enabled() -> bool:
    """Whether a provider has been set: spans are then made."""
    return _installed and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def carrier() -> dict[str, str]:
    """Trace context of the current span by its W3C names; {} where there is none."""
    found: dict[str, str] = {}
    if _installed:
        _W3C.inject(found)
    return found


def current_ids() -> tuple[str, str] | None:
    """Trace and span id of the current span in hex, for log records; None where there is none."""
    if not _installed:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return trace.format_trace_id(context.trace_id), trace.format_span_id(context.span_id)


def submitting(slug: str) -> AbstractContextManager[Span | None]:
    """Producer span around a submission; None where tracing is off."""
    if not enabled():
        return nullcontext()
    return trace.get_tracer(SYSTEM).start_as_current_span(
        f"send {slug}", kind=trace.SpanKind.PRODUCER,
        attributes={
            "messaging.system": SYSTEM, "messaging.operation.type": "send", "messaging.operation.name": "submit",
            "messaging.destination.name": slug, "redisflow.workflow": slug,
        },
    )  # fmt: skip


def submitted(span: Span, run_ids: list[str]) -> None:
    """Tell the span of a submission what came of it."""
    if len(run_ids) == 1:
        span.set_attribute("messaging.message.conversation_id", run_ids[0])
        span.set_attribute("redisflow.run.id", run_ids[0])
    else:
        span.set_attribute("messaging.batch.message_count", len(run_ids))


@contextmanager
def processing(
    slug: str, run_id: str, step_id: str, attempt: int, *, parent: Mapping[str, str], earlier: Iterable[str]
) -> Iterator[Span]:
    """Consumer span of one attempt of a step.

    Args:
        slug: workflow.
        run_id: run.
        step_id: step.
        attempt: its number, from 1.
        parent: what `carrier` gave to the submission; {} begins a trace of its own.
        earlier: traceparents of earlier attempts, which it links to.
    """
    kept = {name: parent[name] for name in NAMES if isinstance(parent.get(name), str)}
    attributes: dict[str, str | int] = {
        "messaging.system": SYSTEM, "messaging.operation.type": "process", "messaging.operation.name": "process",
        "messaging.destination.name": slug, "messaging.message.id": f"{run_id}:{step_id}:{attempt}",
        "messaging.message.conversation_id": run_id, "redisflow.workflow": slug, "redisflow.run.id": run_id,
        "redisflow.step.id": step_id, "redisflow.step.attempt": attempt,
    }  # fmt: skip
    links = [link for traceparent in earlier if (link := _link(traceparent)) is not None]
    with trace.get_tracer(SYSTEM).start_as_current_span(
        f"process {slug}.{step_id}", context=_W3C.extract(kept, context=_no_context()), kind=trace.SpanKind.CONSUMER,
        attributes=attributes, links=links,
    ) as span:  # fmt: skip
        yield span


def _no_context() -> Any:
    from opentelemetry.context import Context

    return Context()


def _link(traceparent: str) -> Link | None:
    found = trace.get_current_span(_W3C.extract({"traceparent": traceparent}, context=_no_context())).get_span_context()
    return trace.Link(found, {"redisflow.link": "earlier attempt"}) if found.is_valid else None


def ended(span: Span, outcome: str, error: BaseException | None = None) -> None:
    """Tell the span of an attempt how it ended: completed, failed, skipped or released."""
    span.set_attribute("redisflow.outcome", outcome)
    if error is not None:
        span.record_exception(error)
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"[:200])
