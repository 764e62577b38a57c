"""States: what the folds over events give, what is registered, and the state machine of steps and runs.

A **step** is pending until everything it needs is done, scheduled while it stands in the queue, running while
a worker holds its lease, and then completed, failed or skipped. What sends it back to scheduled is a failure
with attempts left, a worker that died (reclaim), a worker that gave it back (release), or a retry of its run.
It never leaves completed or skipped.

A **run** is pending until the first claim of one of its steps, then running, and ends completed, failed or
cancelled. Its end is decided first: no claim, outcome or reclaim touches a step of an ended run, so steps may
be left where they were. Only a retry leads on from failed. A rerun makes a new run. The wire form also has
`claimed`, which nothing sets.

`TRANSITIONS` is the whole machine. A row is one move of one subject with the events that record it, and a
call writes the events of its rows in the order of the table; a call that moves several subjects has several
rows. The scripts are held to this table by a test, and the diagrams in the docs are generated from it by
`mermaid`.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, get_args

from pydantic import Field

from redisflow.model.events import (
    Count,
    LogStream,
    Metadata,
    Micros,
    Number,
    Positive,
    Priority,
    ResourceUsage,
    ScheduleReason,
    StepError,
    WireModel,
)

StepStatus = Literal["pending", "scheduled", "running", "completed", "failed", "skipped"]
RunStatus = Literal["pending", "claimed", "running", "completed", "failed", "cancelled"]
AttemptStatus = Literal["running", "completed", "failed"]
Subject = Literal["step", "run"]
Verb = Literal[
    "submit",
    "claim",
    "heartbeat",
    "complete",
    "fail",
    "skip",
    "reclaim",
    "release",
    "cancel",
    "sweep",
    "retry",
    "rerun",
]
VERBS: Final[tuple[Verb, ...]] = get_args(Verb)
STEP_TERMINAL: Final[frozenset[StepStatus]] = frozenset({"completed", "failed", "skipped"})
RUN_TERMINAL: Final[frozenset[RunStatus]] = frozenset({"completed", "failed", "cancelled"})


class Transition(NamedTuple):
    """One move of the machine; `source` None is a subject that does not exist yet."""

    subject: Subject
    source: StepStatus | RunStatus | None
    by: Verb
    target: StepStatus | RunStatus
    events: tuple[str, ...]


_COPIED: Final = (
    "StepScheduled", "StepStarted", "StepFailed", "StepRetrying", "StepReclaimed", "StepCheckpoint", "StepCheckpointFailed",
)  # fmt: skip

TRANSITIONS: Final[tuple[Transition, ...]] = (
    # The run is made; its root steps are due when it is.
    Transition("run", None, "submit", "pending", ("RunSubmitted",)),
    Transition("step", None, "submit", "pending", ()),
    Transition("step", "pending", "submit", "scheduled", ("StepScheduled",)),
    # The first claim of a workflow attempt starts the run; the validation is recorded where a schema is
    # declared.
    Transition("run", "pending", "claim", "running", ("WorkflowStarted", "WorkflowInputValidation")),
    Transition("step", "scheduled", "claim", "running", ("StepStarted",)),
    # The lease is renewed each time, the event is written at most once a minute.
    Transition("step", "running", "heartbeat", "running", ("StepHeartbeat",)),
    # An end advances the run: what became ready is scheduled, and the last end ends the run. Where a step has
    # failed and the others were to finish, the run ends as failed.
    Transition("step", "running", "complete", "completed", ("StepCompleted",)),
    Transition("step", "pending", "complete", "scheduled", ("StepScheduled",)),
    Transition("run", "running", "complete", "completed", ("WorkflowCompleted",)),
    Transition("run", "running", "complete", "failed", ("WorkflowFailed",)),
    # With attempts left, and with none.
    Transition("step", "running", "fail", "scheduled", ("StepFailed", "StepRetrying", "StepScheduled")),
    Transition("step", "running", "fail", "failed", ("StepFailed",)),
    Transition("run", "running", "fail", "failed", ("WorkflowFailed",)),
    # A skip goes down the graph, except into parameters with a default; an ordering-only edge counts it as
    # done.
    Transition("step", "running", "skip", "skipped", ("StepSkipped",)),
    Transition("step", "pending", "skip", "skipped", ("StepSkipped",)),
    Transition("step", "pending", "skip", "scheduled", ("StepScheduled",)),
    Transition("run", "running", "skip", "completed", ("WorkflowCompleted",)),
    Transition("run", "running", "skip", "failed", ("WorkflowFailed",)),
    # Crashes have a budget of their own beside attempts.
    Transition("step", "running", "reclaim", "scheduled", ("StepReclaimed", "StepScheduled")),
    Transition("step", "running", "reclaim", "failed", ("StepReclaimed", "StepFailed")),
    Transition("run", "running", "reclaim", "failed", ("WorkflowFailed",)),
    # The same attempt again: a deploy burns none.
    Transition("step", "running", "release", "scheduled", ("StepScheduled",)),
    # No worker has had its code for too long: step-removed.
    Transition("step", "running", "release", "failed", ("StepFailed",)),
    Transition("run", "running", "release", "failed", ("WorkflowFailed",)),
    Transition("run", "pending", "cancel", "cancelled", ("WorkflowCancelled",)),
    Transition("run", "running", "cancel", "cancelled", ("WorkflowCancelled",)),
    # The run's deadline has passed.
    Transition("run", "pending", "sweep", "failed", ("WorkflowFailed",)),
    Transition("run", "running", "sweep", "failed", ("WorkflowFailed",)),
    # Every step that is neither completed nor skipped, and has what it needs, gets its next attempt.
    Transition("run", "failed", "retry", "pending", ("WorkflowRetryStarted",)),
    Transition("step", "pending", "retry", "scheduled", ("StepScheduled",)),
    Transition("step", "scheduled", "retry", "scheduled", ("StepScheduled",)),
    Transition("step", "running", "retry", "scheduled", ("StepScheduled",)),
    Transition("step", "failed", "retry", "scheduled", ("StepScheduled",)),
    # A new run with lineage; steps that are kept come with copies of the parent's events.
    Transition("run", None, "rerun", "pending", ("RunSubmitted", "WorkflowRerunFromStep")),
    Transition("step", None, "rerun", "pending", ()),
    # The whole history of a finished step is copied, with its times; logs and heartbeats stay behind.
    Transition("step", "pending", "rerun", "completed", (*_COPIED, "StepCompleted")),
    Transition("step", "pending", "rerun", "skipped", (*_COPIED, "StepSkipped")),
    Transition("step", "pending", "rerun", "scheduled", ("StepScheduled",)),
    # Where a kept skip leaves nothing to do.
    Transition("run", "pending", "rerun", "completed", ("WorkflowCompleted",)),
)


def events_by(verb: Verb) -> tuple[str, ...]:
    """Every event type that a call of this verb may write, each once, in the order of the table."""
    return tuple(dict.fromkeys(event for row in TRANSITIONS if row.by == verb for event in row.events))


def mermaid(subject: Subject = "step") -> str:
    """Mermaid `stateDiagram-v2` of the machine of steps or of runs, generated from `TRANSITIONS`."""
    edges: dict[tuple[str, str], list[str]] = {}
    for row in TRANSITIONS:
        if row.subject == subject:
            edges.setdefault((row.source or "[*]", row.target), []).append(row.by)
    terminal = STEP_TERMINAL if subject == "step" else RUN_TERMINAL
    statuses = get_args(StepStatus if subject == "step" else RunStatus)
    lines = [f"    {source} --> {target}: {', '.join(verbs)}" for (source, target), verbs in edges.items()]
    lines += [f"    {status} --> [*]" for status in statuses if status in terminal]
    return "\n".join(["stateDiagram-v2", *lines, ""])


class StateChange(WireModel):
    """A step came into a status at a time; `message` is for people."""

    status: StepStatus
    timestamp: Micros
    message: str | None = None


class StepState(WireModel):
    """All that a step's events say about it now; `duration` in µs, times in µs since the epoch."""

    step_id: str
    run_id: str
    workflow_slug: str
    status: StepStatus
    available_at: Micros | None = None
    schedule_reason: ScheduleReason | None = None
    priority: Priority | None = None
    attempt_number: Positive
    claimed_by: str | None = None
    last_heartbeat: Micros | None = None
    scheduled_at: Micros | None = None
    start_time: Micros | None = None
    end_time: Micros | None = None
    duration: Micros | None = None
    dependencies: tuple[str, ...]
    output: str | None = None
    export_output: bool | None = None
    error: StepError | None = None
    terminal: bool | None = None
    next_retry_at: Micros | None = None
    was_reclaimed: bool | None = None
    reclaimed_from: str | None = None
    reclaimed_by: str | None = None
    resource_usage: ResourceUsage | None = None
    state_changes: tuple[StateChange, ...]


class StepRecord(WireModel):
    """The shorter, older form of a step's state that `load_run` gives."""

    step_id: str
    run_id: str
    status: StepStatus
    start_time: Micros | None = None
    end_time: Micros | None = None
    duration: Micros | None = None
    dependencies: tuple[str, ...]
    input: str | None = None
    output: str | None = None
    error: StepError | None = None
    logs_file: str | None = None
    state_changes: tuple[StateChange, ...]


class StepAttempt(WireModel):
    """One execution of a step; `duration` is end minus start in µs."""

    attempt_number: Positive
    status: AttemptStatus
    start_time: Micros
    end_time: Micros | None = None
    duration: Micros | None = None
    has_logs: bool
    log_count: Count
    resource_usage: ResourceUsage | None = None


class StepLog(WireModel):
    """A line that a step wrote, as a reader of logs sees it (`LogEntry` in the wire form)."""

    timestamp: Micros
    stream: LogStream
    message: str
    attempt_number: Positive


class RunState(WireModel):
    """All that a run's events say about it now; `timeout` in µs, times in µs since the epoch."""

    run_id: str
    workflow_slug: str
    status: RunStatus
    available_at: Micros
    priority: Priority
    workflow_attempt_number: Positive | None = None
    created_at: Micros
    claimed_at: Micros | None = None
    started_at: Micros | None = None
    completed_at: Micros | None = None
    claimed_by: str | None = None
    last_heartbeat: Micros | None = None
    timeout: Positive | None = None
    idempotency_key: str | None = None
    metadata: Metadata | None = None
    tags: tuple[str, ...] | None = None
    input: str | None = None


class RunSubmission(WireModel):
    """What a caller asks for; `available_at` in µs since the epoch, `timeout` in µs."""

    workflow_slug: str
    input: Any = None
    run_id: str | None = None
    available_at: Micros | None = None
    priority: Priority | None = None
    timeout: Positive | None = None
    idempotency_key: str | None = None
    metadata: Metadata | None = None
    tags: tuple[str, ...] | None = None


class StepDefinition(WireModel):
    """A step as the registry knows it."""

    id: str
    name: str
    dependencies: tuple[str, ...]
    export_output: bool


class WorkflowMetadata(WireModel):
    """A workflow as the registry lists it; the schema is JSON Schema."""

    slug: str
    name: str
    location: str | None = None
    input_schema_json: Any = Field(default=None, alias="inputSchemaJSON")


class WorkflowRegistration(WorkflowMetadata):
    """What a worker registers: a workflow with all its steps."""

    steps: tuple[StepDefinition, ...]


class GitInfo(WireModel):
    """The commit that a version was registered from; `dirty` means with changes on top."""

    commit: str
    dirty: bool
    branch: str


class WorkflowVersion(WireModel):
    """One content of a workflow; `version_number` counts from 1 = oldest, `created_at` is in µs."""

    workflow_slug: str
    version_id: str
    version_number: Positive
    created_at: Micros
    step_manifest: tuple[str, ...]
    total_steps: Count
    git: GitInfo | None = None


class RunMetadata(WireModel):
    """A run in a line: when it ran and how many of its steps ended."""

    run_id: str
    start_time: Micros
    end_time: Micros | None = None
    status: Literal["running", "completed", "failed", "partial"]
    total_steps: Number
    completed_steps: Number
    failed_steps: Number
