"""The 20 events that a run's history is made of, in the wire form of CascadeFlow.

An event is immutable and says what happened; every state is a fold over events (`projections.py`). Fields are
snake_case in Python and camelCase on the wire; the bounds are those of `tests/data/events.schema.json`. A
reader ignores fields it does not know, and keeps events of a type it does not know as `UnknownEvent`, so that
older code reads newer histories.

Times are integer microseconds since the epoch, durations integer microseconds. The wire form calls both a
number, so an integral float is read as an integer and anything else is refused. Payloads (`input`, `output`,
`data`) are JSON text and stay text here: nothing in the model needs to look inside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StrictBool, ValidationError
from pydantic.alias_generators import to_camel

from redisflow.model.errors import InvalidInput

ScheduleReason = Literal["initial", "retry", "dependency-satisfied"]
StepFailureReason = Literal[
    "exhausted-retries", "worker-crash", "timeout", "cancelled", "execution-error", "step-removed"
]
RunFailureReason = Literal["step-failed", "worker-crash", "timeout", "cancelled"]
SkipType = Literal["primary", "cascade"]
LogStream = Literal["stdout", "stderr"]

MAX_INT: Final = 2**53 - 1
"""Largest integer that the wire form allows in a count: the largest that a double holds exactly."""


def _integral(value: object) -> object:
    """Read 3.0 as 3, as a JSON writer without integers means it; the rest is the strict integer's."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_FromFloat = BeforeValidator(_integral)
Micros = Annotated[int, Field(strict=True), _FromFloat]
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INT), _FromFloat]
Positive = Annotated[int, Field(strict=True, ge=1, le=MAX_INT), _FromFloat]
Priority = Annotated[int, Field(strict=True, ge=-MAX_INT, le=MAX_INT), _FromFloat]
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]
Metadata = dict[str, JsonValue]


class WireModel(BaseModel):
    """Base of everything with a JSON form: frozen, snake_case in Python, unknown fields ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
    )

    def to_wire(self) -> dict[str, Any]:
        """The JSON form: camelCase keys, absent instead of null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StepError(WireModel):
    """What went wrong: the message, the class name of the exception and its formatted traceback."""

    message: str
    stack: str | None = None
    name: str | None = None


class ErrorFingerprints(WireModel):
    """SHA-1 hashes (hex) of an error, by which equal errors are grouped; see `fingerprints.py`."""

    name_hash: str
    message_hash: str
    stack_exact_hash: str
    stack_normalized_hash: str
    stack_portable_hash: str


class ResourceUsage(WireModel):
    """What an execution used in all: bytes, microseconds of CPU, context switches."""

    peak_memory_bytes: Number
    cpu_time_user_us: Number
    cpu_time_system_us: Number
    cpu_time_total_us: Number
    voluntary_context_switches: Count
    involuntary_context_switches: Count


class ResourceSnapshot(WireModel):
    """What an execution holds at the time of a heartbeat: bytes, microseconds of CPU so far."""

    memory_bytes: Number
    cpu_time_us: Number | None = None


class ValidationIssue(WireModel):
    """One problem of an input: the dotted path of the field and what is wrong there."""

    path: str
    message: str


class CheckpointRef(WireModel):
    """Names a checkpoint inside its step."""

    name: str
    sequence_number: Count


class BaseEvent(WireModel):
    """What every event carries; `event_id` rises within a run."""

    event_id: str = Field(pattern="^[0-9]+$")
    timestamp_us: Micros
    workflow_slug: str
    run_id: str


class BaseStepEvent(BaseEvent):
    """An event of one step."""

    category: Literal["step"] = "step"
    step_id: str


class BaseWorkflowEvent(BaseEvent):
    """An event of a run as a whole."""

    category: Literal["workflow"] = "workflow"


class StepScheduled(BaseStepEvent):
    """The step may run from `available_at_us` on; higher `priority` is more urgent."""

    type: Literal["StepScheduled"] = "StepScheduled"
    available_at_us: Micros
    reason: ScheduleReason
    attempt_number: Positive
    retry_delay_ms: Count | None = None
    priority: Priority | None = None
    policy_index: Count | None = None
    attempt_in_policy: Positive | None = None


class StepStarted(BaseStepEvent):
    """A worker claimed the step and runs this attempt of it."""

    type: Literal["StepStarted"] = "StepStarted"
    worker_id: str
    dependencies: tuple[str, ...]
    attempt_number: Positive
    slot_index: Count | None = None
    worker_concurrency: Positive | None = None


class StepHeartbeat(BaseStepEvent):
    """The worker still runs the attempt."""

    type: Literal["StepHeartbeat"] = "StepHeartbeat"
    worker_id: str
    attempt_number: Positive
    slot_index: Count | None = None
    worker_concurrency: Positive | None = None
    resource_snapshot: ResourceSnapshot | None = None


class StepCompleted(BaseStepEvent):
    """The attempt returned; `output` is JSON text."""

    type: Literal["StepCompleted"] = "StepCompleted"
    output: str
    duration_us: Micros
    attempt_number: Positive
    export_output: StrictBool
    resource_usage: ResourceUsage | None = None


class StepFailed(BaseStepEvent):
    """The attempt failed; `terminal` says that no other follows."""

    type: Literal["StepFailed"] = "StepFailed"
    error: StepError
    error_fingerprints: ErrorFingerprints
    duration_us: Micros
    attempt_number: Positive
    terminal: StrictBool
    next_retry_at_us: Micros | None = None
    failure_reason: StepFailureReason
    policy_index: Count | None = None
    attempt_in_policy: Positive | None = None
    resource_usage: ResourceUsage | None = None


class StepRetrying(BaseStepEvent):
    """A failed attempt gets a successor; policy fields are those of the successor."""

    type: Literal["StepRetrying"] = "StepRetrying"
    attempt_number: Positive
    next_attempt: Positive
    error: StepError
    max_retries: Count | None = None
    total_policies: Positive | None = None
    policy_index: Count | None = None


class StepSkipped(BaseStepEvent):
    """The step will not run: it said so itself (primary), or a step it needs was skipped (cascade)."""

    type: Literal["StepSkipped"] = "StepSkipped"
    skip_type: SkipType
    reason: str
    metadata: Metadata | None = None
    duration_us: Micros
    attempt_number: Positive
    cascaded_from: str | None = None


class StepReclaimed(BaseStepEvent):
    """The attempt was taken from a worker that had stopped sending heartbeats."""

    type: Literal["StepReclaimed"] = "StepReclaimed"
    original_worker_id: str
    reclaimed_by: str
    last_heartbeat_us: Micros
    stale_threshold_us: Micros
    stale_duration_us: Micros
    attempt_number: Positive


class LogEntry(BaseStepEvent):
    """A line that the step's body wrote."""

    type: Literal["LogEntry"] = "LogEntry"
    stream: LogStream
    message: str
    attempt_number: Positive


class StepCheckpoint(BaseStepEvent):
    """A value that a retry replays instead of computing it again; `data` is JSON text."""

    type: Literal["StepCheckpoint"] = "StepCheckpoint"
    name: str
    sequence_number: Count
    attempt_number: Positive
    data: str
    label: str | None = None
    parent_checkpoint: CheckpointRef | None = None


class StepCheckpointFailed(BaseStepEvent):
    """What was to become a checkpoint raised."""

    type: Literal["StepCheckpointFailed"] = "StepCheckpointFailed"
    name: str
    sequence_number: Count
    attempt_number: Positive
    error: StepError


class RunSubmitted(BaseWorkflowEvent):
    """The run was accepted; `input` is JSON text, `timeout_us` counts from `available_at_us`."""

    type: Literal["RunSubmitted"] = "RunSubmitted"
    version_id: str
    available_at_us: Micros
    priority: Priority
    input: str | None = None
    has_input_schema: StrictBool
    timeout_us: Positive | None = None
    idempotency_key: str | None = None
    metadata: Metadata | None = None
    tags: tuple[str, ...] | None = None


class WorkflowStarted(BaseWorkflowEvent):
    """The first step of this workflow attempt was claimed."""

    type: Literal["WorkflowStarted"] = "WorkflowStarted"
    version_id: str
    workflow_attempt_number: Positive
    has_input_schema: StrictBool
    has_input: StrictBool


class WorkflowInputValidation(BaseWorkflowEvent):
    """The input was held against the workflow's schema."""

    type: Literal["WorkflowInputValidation"] = "WorkflowInputValidation"
    workflow_attempt_number: Positive
    has_schema: StrictBool
    success: StrictBool
    error: StepError | None = None
    validation_errors: tuple[ValidationIssue, ...] | None = None


class WorkflowCompleted(BaseWorkflowEvent):
    """Every step is done; `duration_us` counts from RunSubmitted."""

    type: Literal["WorkflowCompleted"] = "WorkflowCompleted"
    workflow_attempt_number: Positive
    output: str
    duration_us: Micros
    total_steps: Positive


class WorkflowFailed(BaseWorkflowEvent):
    """The run failed; `failed_step` is absent for a timeout of the run."""

    type: Literal["WorkflowFailed"] = "WorkflowFailed"
    workflow_attempt_number: Positive
    error: StepError
    duration_us: Micros
    completed_steps: Count
    failed_step: str | None = None
    failure_reason: RunFailureReason


class WorkflowResumed(BaseWorkflowEvent):
    """The run goes on from where another one stopped."""

    type: Literal["WorkflowResumed"] = "WorkflowResumed"
    version_id: str
    original_run_id: str
    resumed_steps: Count
    pending_steps: Count


class WorkflowCancelled(BaseWorkflowEvent):
    """Somebody cancelled the run."""

    type: Literal["WorkflowCancelled"] = "WorkflowCancelled"
    workflow_attempt_number: Positive
    reason: str | None = None
    duration_us: Micros
    completed_steps: Count


class WorkflowRetryStarted(BaseWorkflowEvent):
    """A failed run starts its next workflow attempt."""

    type: Literal["WorkflowRetryStarted"] = "WorkflowRetryStarted"
    workflow_attempt_number: Positive
    previous_attempt_number: Positive
    retried_steps: tuple[str, ...]
    reason: str | None = None


class WorkflowRerunFromStep(BaseWorkflowEvent):
    """This run repeats part of another; `rerun_step_ids` includes the step it starts from."""

    type: Literal["WorkflowRerunFromStep"] = "WorkflowRerunFromStep"
    parent_run_id: str
    rerun_from_step_id: str
    rerun_step_ids: tuple[str, ...]
    version_id: str
    parent_version_id: str


class UnknownEvent(BaseEvent):
    """An event of a type that this version does not know; folds pass it by, `raw` is what was read."""

    category: str
    step_id: str | None = None
    type: str
    raw: dict[str, Any] = Field(exclude=True)

    def to_wire(self) -> dict[str, Any]:
        """The event as it was read."""
        return dict(self.raw)


StepEvent = Annotated[
    StepScheduled
    | StepStarted
    | StepHeartbeat
    | StepCompleted
    | StepFailed
    | StepRetrying
    | StepSkipped
    | StepReclaimed
    | LogEntry
    | StepCheckpoint
    | StepCheckpointFailed,
    Field(discriminator="type"),
]
WorkflowEvent = Annotated[
    RunSubmitted
    | WorkflowStarted
    | WorkflowInputValidation
    | WorkflowCompleted
    | WorkflowFailed
    | WorkflowResumed
    | WorkflowCancelled
    | WorkflowRetryStarted
    | WorkflowRerunFromStep,
    Field(discriminator="type"),
]
Event = Annotated[StepEvent | WorkflowEvent, Field(discriminator="type")]
AnyEvent = Event | UnknownEvent

STEP_EVENT_TYPES: Final[dict[str, type[BaseStepEvent]]] = {
    model.model_fields["type"].default: model for model in BaseStepEvent.__subclasses__()
}
WORKFLOW_EVENT_TYPES: Final[dict[str, type[BaseWorkflowEvent]]] = {
    model.model_fields["type"].default: model for model in BaseWorkflowEvent.__subclasses__()
}
EVENT_TYPES: Final[dict[str, type[BaseEvent]]] = {**STEP_EVENT_TYPES, **WORKFLOW_EVENT_TYPES}
"""Name on the wire to model, of all 20 event types."""


def parse_event(data: Mapping[str, Any]) -> AnyEvent:
    """Read an event from its JSON form.

    Args:
        data: the decoded JSON object; null counts as absent, unknown fields are dropped.

    Returns:
        The event, or an `UnknownEvent` where the type is not one of ours.

    Raises:
        InvalidInput: a field is missing or has the wrong form; the problems name the fields as the wire does.
    """
    kind = data.get("type")
    model = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
    what = f"event {kind if model else repr(kind)}" if isinstance(kind, str) else "event"
    if model is not None and data.get("category") is None:
        # The models have a default for it, so that code need not repeat itself; the wire form has none.
        raise InvalidInput(what, [("category", "Field required")])
    try:
        if model is None:
            return UnknownEvent.model_validate({**data, "raw": dict(data)})
        return model.model_validate(data)  # type: ignore[return-value]  # EVENT_TYPES holds the members of Event
    except ValidationError as error:
        raise InvalidInput(what, _problems(error)) from None


def _problems(error: ValidationError) -> list[tuple[str, str]]:
    return [
        (".".join(str(part) for part in problem["loc"]) or "$", problem["msg"])
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def to_wire(event: BaseEvent) -> dict[str, Any]:
    """The JSON form: camelCase keys, absent instead of null; `parse_event` gives the event back."""
    return event.to_wire()
