"""The compiled plan of a workflow: what the server needs to know of it, and nothing of the Python behind it.

`define` compiles a workflow to a `Plan` when it is sealed; the backend stores it once a version, and the
scripts walk its edges. The version is a hash of all that has a say in an execution, the code of the steps
included: equal versions run alike, and a run keeps to the plan it was submitted with.

An edge says what a step waits for and what a skip does to it:
- **required** feeds a parameter without a default: a skip cascades.
- **optional** feeds a parameter with a default: a skip leaves it at that.
- **after** orders only: a skipped step counts as done.

Steps stand in the order of their declaration, and depend only on steps above them, so a plan has no cycles.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from redisflow.model.retry import RetryPolicy

EdgeKind = Literal["required", "optional", "after"]
OnError = Literal["stop", "finish"]

STEP_NAME = r"^[A-Za-z0-9_-]{1,64}$"
"""What the name of a step declared in Python may be; names with a dot are kept for instances of a mapped step."""
STEP_ID = r"^[A-Za-z0-9_.-]{1,100}(/[A-Za-z0-9_.-]{1,100}){0,7}$"
"""What a step id may be: names, and those of other makers of workflows, which may be nested (`group/step`)."""
SLUG = r"^[A-Za-z0-9_.-]{1,64}$"
"""What a workflow's slug and the name of a queue may be."""


class _Frozen(BaseModel):
    """Base of the plan's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Edge(_Frozen):
    """One thing that a step waits for: the step above, and in which way."""

    step: str = Field(pattern=STEP_ID)
    kind: EdgeKind


class PlanStep(_Frozen):
    """One step.

    Attributes:
        id: unique in the plan.
        name: for people.
        dependencies: what it waits for.
        params: steps whose output it cannot do without; the `required` edges. A worker whose step needs more
            than this has other code than the run was submitted with.
        queue: where it stands when it may run.
        retry: its budgets.
        timeout_us: how long one attempt may take, in µs; None for no limit.
        export: whether its output is part of the workflow's.
        code: hash of its source.
    """

    id: str = Field(pattern=STEP_ID)
    name: str
    dependencies: tuple[Edge, ...] = ()
    params: tuple[str, ...] = ()
    queue: str = Field(pattern=SLUG)
    retry: RetryPolicy = RetryPolicy()
    timeout_us: int | None = Field(None, gt=0)
    export: bool = False
    code: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [edge.step for edge in self.dependencies]
        if len(set(names)) != len(names):
            raise ValueError(f"step {self.id!r} depends on a step twice")
        required = {edge.step for edge in self.dependencies if edge.kind == "required"}
        if set(self.params) != required:
            raise ValueError(f"step {self.id!r}: params must be its required dependencies {sorted(required)}")
        return self


class Plan(_Frozen):
    """A compiled workflow.

    Attributes:
        slug: its id in a namespace.
        name: for people.
        steps: in declaration order; at least one.
        on_error: `stop` ends the run at the first failed step, `finish` lets what does not depend on it go
            on.
        timeout_us: how long a run may take from its `availableAt`, in µs; None for no limit.
        input_schema: JSON Schema of the input; None where none is declared or it has no such form.
        input_required: whether a run without input is a mistake.
        output_schema: JSON Schema of the output, likewise.
    """

    slug: str = Field(pattern=SLUG)
    name: str
    steps: tuple[PlanStep, ...] = Field(min_length=1)
    on_error: OnError = "stop"
    timeout_us: int | None = Field(None, gt=0)
    input_schema: dict[str, Any] | None = None
    input_required: bool = False
    output_schema: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _acyclic(self) -> Self:
        above: set[str] = set()
        for step in self.steps:
            if step.id in above:
                raise ValueError(f"step {step.id!r} is there twice")
            for edge in step.dependencies:
                if edge.step not in above:
                    raise ValueError(f"step {step.id!r} depends on {edge.step!r}, which is not above it")
            above.add(step.id)
        return self

    @cached_property
    def version(self) -> str:
        """`sha256:` and the hex hash of all that has a say in an execution; names for people have none."""
        said = self.model_dump(mode="json", exclude={"name": True, "steps": {"__all__": {"name"}}})
        canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return "sha256:" + hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    @cached_property
    def dependents(self) -> dict[str, tuple[tuple[str, EdgeKind], ...]]:
        """For every step, who waits for it and in which way, in declaration order."""
        found: dict[str, list[tuple[str, EdgeKind]]] = {step.id: [] for step in self.steps}
        for step in self.steps:
            for edge in step.dependencies:
                found[edge.step].append((step.id, edge.kind))
        return {step_id: tuple(waiting) for step_id, waiting in found.items()}

    @cached_property
    def roots(self) -> tuple[str, ...]:
        """Steps that wait for nothing, in declaration order."""
        return tuple(step.id for step in self.steps if not step.dependencies)
