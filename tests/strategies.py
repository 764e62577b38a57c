"""Hypothesis strategies for the domain's models: any event, of any type, that the wire form allows.

Fields of one name mean the same in every event, so one table of names covers all models; an optional field is
sometimes absent. `events()` gives single events, `event_of(model)` those of one type, `histories()` whole
histories of few runs and steps, in which ends, starts and heartbeats come in any order.
"""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from redisflow.model.events import (
    EVENT_TYPES,
    MAX_INT,
    STEP_EVENT_TYPES,
    AnyEvent,
    BaseEvent,
    CheckpointRef,
    ErrorFingerprints,
    LogStream,
    ResourceSnapshot,
    ResourceUsage,
    RunFailureReason,
    ScheduleReason,
    SkipType,
    StepError,
    StepFailureReason,
    ValidationIssue,
    WireModel,
    WorkflowFailed,
)

POSITIVE = st.integers(1, MAX_INT)
COUNT = st.integers(0, MAX_INT)
MICROS = st.integers(-(2**60), 2**60)
TEXT = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=12)
NUMBER = st.one_of(st.integers(0, 2**60), st.floats(allow_nan=False, allow_infinity=False))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-MAX_INT, MAX_INT), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
METADATA = st.dictionaries(TEXT, JSON, max_size=3)
STRINGS = st.lists(NAMES, max_size=3).map(tuple)
HASHES = st.text("0123456789abcdef", min_size=40, max_size=40)


def _make(model: type[WireModel], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Models of these fields; `st.builds` would look at annotations, whose metadata it does not know."""
    return st.fixed_dictionaries(fields).map(lambda values: model(**values))


ERRORS = _make(StepError, message=TEXT, stack=st.none() | TEXT, name=st.none() | NAMES)
FINGERPRINTS = _make(
    ErrorFingerprints,
    **dict.fromkeys(("name_hash", "message_hash", "stack_exact_hash"), HASHES)
    | dict.fromkeys(("stack_normalized_hash", "stack_portable_hash"), HASHES),
)
RESOURCE_USAGE = _make(
    ResourceUsage,
    peak_memory_bytes=NUMBER,
    cpu_time_user_us=NUMBER,
    cpu_time_system_us=NUMBER,
    cpu_time_total_us=NUMBER,
    voluntary_context_switches=COUNT,
    involuntary_context_switches=COUNT,
)

_BY_NAME: dict[str, st.SearchStrategy[Any]] = {
    "event_id": st.integers(0, 2**63).map(str),
    "priority": st.integers(-MAX_INT, MAX_INT),
    "error": ERRORS,
    "error_fingerprints": FINGERPRINTS,
    "resource_usage": RESOURCE_USAGE,
    "resource_snapshot": _make(ResourceSnapshot, memory_bytes=NUMBER, cpu_time_us=st.none() | NUMBER),
    "metadata": METADATA,
    "parent_checkpoint": _make(CheckpointRef, name=NAMES, sequence_number=COUNT),
    "validation_errors": st.lists(_make(ValidationIssue, path=TEXT, message=TEXT), max_size=3).map(tuple),
    "stream": st.sampled_from(get_args(LogStream)),
    "skip_type": st.sampled_from(get_args(SkipType)),
    "failure_reason": st.sampled_from(get_args(StepFailureReason)),
    **dict.fromkeys(("timestamp_us", "duration_us", "available_at_us", "next_retry_at_us"), MICROS),
    **dict.fromkeys(("last_heartbeat_us", "stale_threshold_us", "stale_duration_us"), MICROS),
    **dict.fromkeys(("attempt_number", "workflow_attempt_number", "previous_attempt_number"), POSITIVE),
    **dict.fromkeys(("next_attempt", "attempt_in_policy", "total_policies", "worker_concurrency"), POSITIVE),
    **dict.fromkeys(("timeout_us", "total_steps"), POSITIVE),
    **dict.fromkeys(("slot_index", "policy_index", "retry_delay_ms", "max_retries"), COUNT),
    **dict.fromkeys(("sequence_number", "completed_steps", "resumed_steps", "pending_steps"), COUNT),
    **dict.fromkeys(("dependencies", "tags", "retried_steps", "rerun_step_ids"), STRINGS),
    **dict.fromkeys(("terminal", "export_output", "has_input_schema", "has_input"), st.booleans()),
    **dict.fromkeys(("has_schema", "success"), st.booleans()),
}


def fields_of(model: type[WireModel], **fixed: st.SearchStrategy[Any]) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for each field of an event model; optional ones are sometimes None."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, info in model.model_fields.items():
        if name in ("type", "category"):
            continue
        strategy = fixed.get(name, _BY_NAME.get(name, TEXT))
        if name == "reason" and model is EVENT_TYPES["StepScheduled"]:
            strategy = st.sampled_from(get_args(ScheduleReason))
        if name == "failure_reason" and model is WorkflowFailed:
            strategy = st.sampled_from(get_args(RunFailureReason))
        fields[name] = strategy if info.is_required() else st.none() | strategy
    return fields


def event_of(model: type[BaseEvent], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Events of one type; `fixed` replaces the strategies of single fields."""
    return _make(model, **fields_of(model, **fixed))


def events() -> st.SearchStrategy[AnyEvent]:
    """Events of any of the 20 types."""
    return st.one_of([event_of(model) for _, model in sorted(EVENT_TYPES.items())])


def histories(max_size: int = 30) -> st.SearchStrategy[list[AnyEvent]]:
    """Histories of at most two runs with two steps each and low attempt numbers, in any order."""
    low = st.integers(1, 3)
    common: dict[str, st.SearchStrategy[Any]] = {
        "run_id": st.sampled_from(["run-1", "run-2"]),
        "workflow_slug": st.just("checkout"),
        "timestamp_us": st.integers(0, 10_000),
        "duration_us": st.integers(0, 10_000),
        "available_at_us": st.integers(0, 10_000),
        "stale_duration_us": st.integers(0, 10_000),
        "attempt_number": low,
    }
    step = {**common, "step_id": st.sampled_from(["charge", "notify"])}

    each = [
        event_of(model, **(step if name in STEP_EVENT_TYPES else common)) for name, model in sorted(EVENT_TYPES.items())
    ]
    return st.lists(st.one_of(each), max_size=max_size)
