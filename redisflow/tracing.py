"""OpenTelemetry (extra `otel`): the trace context of who submits travels in the run, so that its steps join the trace.

Only the API is used; which spans are made, and where they go, is the application's choice of provider. Without the API, or
without a provider, every function here does nothing, and nothing is added to a run. The context is kept in the run's metadata under
the names of W3C Trace Context.

A run ends inside Redis, and an attempt may end by the death of its process. So their spans have ids that follow from the names of
the run, the step and the execution: whoever comes to know of an end exports the span, and others name it as parent or in a link
without having seen it. Choosing ids is a matter of the SDK's tracer (`id_generator`); another provider gives no span of a run.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, Tracer

try:
    from opentelemetry import context as otel_context
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:
    _installed = False
else:
    _installed = True
    _named = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ  # then the first look for a provider makes it
    _W3C = TraceContextTextMapPropagator()

SYSTEM = "redisflow"
NAMES = ("traceparent", "tracestate")
"""Names in a run's metadata."""
FLUSH_MS = 3_000
"""How long a process that is about to end waits for its spans to go out."""


def enabled() -> bool:
    """Whether a provider has been set: spans are then made."""
    if not _installed or (getattr(trace, "_TRACER_PROVIDER", _named) is None and not _named):
        return False  # `get_tracer_provider` looks into the environment each time: a tenth of a lone submit's Python
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


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


def submitting(slug: str) -> AbstractContextManager[Span]:
    """Producer span around a submission, where tracing is `enabled`."""
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


@dataclass(frozen=True)
class TracedRun:
    """What the spans of a run are made of.

    Attributes:
        slug: workflow.
        id: run.
        attempt: number of the run's attempt, from 1: a retried run has a span for each.
        begun_us: when the attempt of the run began (µs).
        submission: metadata of the run, which has what `carrier` gave to the submission.
    """

    slug: str
    id: str
    attempt: int
    begun_us: int
    submission: Mapping[str, Any]

    @property
    def attributes(self) -> dict[str, str | int]:
        """Of each of its spans."""
        return {
            "messaging.system": SYSTEM, "messaging.destination.name": self.slug, "messaging.message.conversation_id": self.id,
            "redisflow.workflow": self.slug, "redisflow.run.id": self.id,
        }  # fmt: skip


@dataclass(frozen=True)
class Execution:
    """One execution of a step; `lease` (µs) is when it began, and names it."""

    step_id: str
    attempt: int
    lease: int


class _Chosen:
    """Ids of one span and, where it begins one, of its trace; the SDK's `IdGenerator` as far as a tracer asks for it."""

    def __init__(self, span: str, of_trace: str) -> None:
        self._ids = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:16]) for name in (of_trace, span)]

    def generate_trace_id(self) -> int:
        return self._ids[0] or 1

    def generate_span_id(self) -> int:
        return self._ids[1] >> 64 or 1

    def is_trace_id_random(self) -> bool:
        return True  # its bits are as good as random, which is what samplers want to know


def _tracer(run_id: str, span: str) -> Tracer:
    """A tracer whose spans have the id that follows from a name, where the provider's can be told."""
    tracer = trace.get_tracer(SYSTEM)
    if hasattr(tracer, "id_generator"):
        tracer = copy.copy(tracer)  # the provider hands the same one to everybody
        tracer.id_generator = _Chosen(span, run_id)
    return tracer


def chooses_ids() -> bool:
    """Whether the provider lets us choose ids: spans of runs are made only then."""
    return hasattr(trace.get_tracer(SYSTEM), "id_generator")


def _submitter(run: TracedRun) -> Context:
    kept = {name: run.submission[name] for name in NAMES if isinstance(run.submission.get(name), str)}
    return _W3C.extract(kept, context=_no_context())


def _run_parts(run: TracedRun) -> tuple[str, str, dict[str, str | int]]:
    """Name of the span of a run, what its id follows from, and attributes."""
    return f"run {run.slug}", f"{run.id}#{run.attempt}", {**run.attributes, "redisflow.run.attempt": run.attempt}


def _within(run: TracedRun) -> Context:
    """Context of a run's steps, whose parent is a span that nobody has begun yet; the sampler says whether it will be one."""
    outer = _submitter(run)
    name, span_name, attributes = _run_parts(run)
    tracer = _tracer(run.id, span_name)
    ids, sampler = getattr(tracer, "id_generator", None), getattr(tracer, "sampler", None)
    if ids is None or sampler is None:
        return outer
    parent = trace.get_current_span(outer).get_span_context()
    trace_id = parent.trace_id if parent.is_valid else ids.generate_trace_id()
    said = sampler.should_sample(outer, trace_id, name, trace.SpanKind.INTERNAL, attributes, ())
    flags = trace.TraceFlags.SAMPLED if said.decision.is_sampled() else trace.TraceFlags.DEFAULT
    context = trace.SpanContext(trace_id, ids.generate_span_id(), True, trace.TraceFlags(flags), said.trace_state)
    return trace.set_span_in_context(trace.NonRecordingSpan(context), outer)


def run_ended(run: TracedRun, outcome: str, ended_us: int, error: str = "") -> None:
    """Export the span of a run: for who saw its end.

    Args:
        run: the run.
        outcome: completed, failed or cancelled.
        ended_us: when (µs).
        error: of a failed run.
    """
    name, span_name, attributes = _run_parts(run)
    span = _tracer(run.id, span_name).start_span(
        name, context=_submitter(run), start_time=run.begun_us * 1000,
        attributes={**attributes, "redisflow.outcome": outcome},
    )  # fmt: skip
    if outcome == "failed":
        span.set_status(trace.StatusCode.ERROR, error[:200])
    span.end(end_time=ended_us * 1000)


def _attempt(run: TracedRun, of: Execution) -> tuple[str, str, dict[str, str | int]]:
    """Name of the span of an execution, what its id follows from, and attributes."""
    return f"process {run.slug}.{of.step_id}", f"{run.id}|{of.step_id}|{of.lease}", {
        **run.attributes, "messaging.operation.type": "process", "messaging.operation.name": "process",
        "messaging.message.id": f"{run.id}:{of.step_id}:{of.attempt}", "redisflow.step.id": of.step_id,
        "redisflow.step.attempt": of.attempt,
    }  # fmt: skip


@contextmanager
def processing(run: TracedRun, of: Execution, *, earlier: Iterable[str | Execution]) -> Iterator[Span]:
    """Consumer span of one attempt of a step.

    Args:
        run: the run.
        of: the execution.
        earlier: earlier attempts, which it links to: traceparents, or executions that left none.
    """
    context = _within(run)
    name, span_name, attributes = _attempt(run, of)
    links = [link for one in earlier if (link := _link(run, one, context)) is not None]
    with _tracer(run.id, span_name).start_as_current_span(
        name, context=context, kind=trace.SpanKind.CONSUMER, attributes=attributes, links=links
    ) as span:
        yield span


def reclaimed(run: TracedRun, of: Execution, ended_us: int, worker_id: str) -> None:
    """Export the span of an attempt that was taken back at a time (µs), in place of its worker, which fell silent."""
    name, span_name, attributes = _attempt(run, of)
    told = {"redisflow.outcome": "reclaimed", "redisflow.worker.id": worker_id, "error.type": "WorkerCrashed"}
    span = _tracer(run.id, span_name).start_span(
        name, context=_within(run), kind=trace.SpanKind.CONSUMER, start_time=of.lease * 1000,
        attributes={**attributes, **told},
    )  # fmt: skip
    span.set_status(trace.StatusCode.ERROR, f"worker {worker_id} stopped sending heartbeats")
    span.end(end_time=ended_us * 1000)


def _no_context() -> Context:
    return otel_context.Context()


def _link(run: TracedRun, earlier: str | Execution, context: Context) -> Link | None:
    if isinstance(earlier, str):
        parsed = _W3C.extract({"traceparent": earlier}, context=_no_context())
        found = trace.get_current_span(parsed).get_span_context()
    elif chooses_ids():
        of_run = trace.get_current_span(context).get_span_context()
        span_id = _Chosen(_attempt(run, earlier)[1], run.id).generate_span_id()
        found = trace.SpanContext(of_run.trace_id, span_id, is_remote=True, trace_flags=of_run.trace_flags)
    else:
        return None
    return trace.Link(found, {"redisflow.link": "earlier attempt"}) if found.is_valid else None


def ended(span: Span, outcome: str, error: BaseException | None = None) -> None:
    """Tell the span of an attempt how it ended: completed, failed, skipped or released."""
    span.set_attribute("redisflow.outcome", outcome)
    if error is not None:
        span.record_exception(error)
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"[:200])


@contextmanager
def joined(given: Mapping[str, str]) -> Iterator[None]:
    """Within this block, in another process, the current span is the one whose `carrier` is given; then spans are flushed."""
    if not _installed or not given:
        yield
        return
    token = otel_context.attach(_W3C.extract(given))
    try:
        yield
    finally:
        otel_context.detach(token)
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)
        if flush is not None:
            flush(FLUSH_MS)
