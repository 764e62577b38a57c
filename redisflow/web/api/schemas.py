"""What goes into the API and comes out of it beside events and states: camelCase JSON, from which the OpenAPI document is made."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from redisflow.model.events import WireModel
from redisflow.model.states import RunState, RunStatus, StepState, WorkflowMetadata


class Body(BaseModel):
    """Base of request bodies: unknown fields are refused, so that a typo is told."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, populate_by_name=False)


class SubmitBody(Body):
    """A run to submit. Durations are text such as `30s`, or seconds."""

    input: Any = Field(None, description="JSON value, checked against the workflow's schema")
    priority: int = Field(0, ge=-100, le=100)
    tags: list[str] = Field(default_factory=list)
    delay: str | float | None = None
    timeout: str | float | None = None
    run_id: str | None = None
    metadata: dict[str, Any] | None = None


class ReasonBody(Body):
    """Why; recorded in the run's history."""

    reason: str | None = None


class RerunBody(Body):
    """The step to repeat, with all that depends on it; without `input` the run's own is kept."""

    from_step: str
    input: Any = None


class Problem(WireModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class Submitted(WireModel):
    """A run; `isNew` is false where its idempotency key was known."""

    run_id: str
    is_new: bool


class RunList(WireModel):
    """A page of runs, newest first.

    Without a time, an id or a cursor asked for, `total` says how many fit. Else the page is looked for among the runs that indexes
    narrow it down to: `lookedAt` of `among` so far, with the pages before, and `cursor`, where any are left, gives the next page.
    """

    runs: list[RunState]
    total: int | None = None
    looked_at: int | None = None
    among: int | None = None
    cursor: str | None = None


class RunDetail(WireModel):
    """A run and its steps that have begun."""

    run: RunState
    steps: list[StepState]


class RunError(WireModel):
    """How a run failed."""

    name: str | None = None
    message: str
    step: str | None = None
    stack: str | None = None


class RunResult(WireModel):
    """How a run ended: with `result` where completed, `error` where failed, `reason` where cancelled; else its status alone."""

    run_id: str
    status: RunStatus
    result: Any = None
    error: RunError | None = None
    reason: str | None = None


class Cancelled(WireModel):
    """Whether the call cancelled the run, and its status after."""

    cancelled: bool
    status: RunStatus


class Retried(WireModel):
    """How many steps were scheduled."""

    scheduled_steps: int


class LogLine(WireModel):
    """A line that a step wrote; `timestampUs` in µs since the epoch."""

    timestamp_us: int
    step_id: str
    attempt_number: int
    stream: Literal["stdout", "stderr"]
    message: str


class LogList(WireModel):
    """Lines of a run, by time."""

    logs: list[LogLine]


class WorkflowList(WireModel):
    """Registered workflows."""

    workflows: list[WorkflowMetadata]


class QueueLevel(WireModel):
    """A priority level of a queue; `oldestUs` is how long its oldest due step could have run."""

    queue: str
    level: int
    due: int
    delayed: int
    running: int
    idle: int
    oldest_us: int | None = None


class QueueList(WireModel):
    """Queue levels that hold steps."""

    queues: list[QueueLevel]
