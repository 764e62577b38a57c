"""Workflows: what is registered, and one of them with its graph, versions, figures a step, and the form that submits a run."""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.redis.glance import count_runs, counts_by_workflow, plan_of_version
from redisflow.model.analytics import EventTypes, StepDuration
from redisflow.model.analytics.durations import StepDurationCounter
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import BaseEvent, StepCompleted, StepFailed
from redisflow.model.states import WorkflowVersion
from redisflow.model.workflow import Plan, PlanStep
from redisflow.settings import format_duration
from redisflow.web.desk import Desk, desk_of
from redisflow.web.forms import fields_of
from redisflow.web.graph import draw
from redisflow.web.render import respond

SAMPLE = 60
"""Newest runs that the figures of steps are over."""
VERSIONS = 20


class _StepCounter:
    """Durations, failures by step."""

    counted: ClassVar[EventTypes] = (StepCompleted, StepFailed)

    def __init__(self) -> None:
        self.durations: dict[str, StepDurationCounter] = defaultdict(StepDurationCounter)
        self.failed: dict[str, int] = defaultdict(int)

    def add(self, event: BaseEvent) -> None:
        if isinstance(event, StepCompleted | StepFailed):
            self.durations[event.step_id].add(event)
            self.failed[event.step_id] += isinstance(event, StepFailed)


async def workflows(request: Request) -> Response:
    """All registered workflows with how many runs of each are kept."""
    backend = desk_of(request).backend
    records = await backend.workflow_records()
    counts = await counts_by_workflow(backend, [str(record["slug"]) for record in records])
    return respond(request, "workflows.html", active="workflows", records=records, counts=counts)


async def workflow(request: Request) -> Response:
    """One workflow."""
    return await show_workflow(request, request.path_params["slug"])


async def show_workflow(
    request: Request, slug: str, status: int = 200, problem: str | None = None, typed: Mapping[str, str] | None = None
) -> Response:
    """The page of a workflow; with a problem and what was typed where a submission was refused."""
    desk = desk_of(request)
    plan = await desk.backend.registered_plan(slug)
    versions = await desk.backend.list_workflow_versions(slug, VERSIONS)
    runs, total = await desk.backend.list_runs(slug, limit=SAMPLE)
    schema = json.dumps(plan.input_schema, indent=2) if plan.input_schema else ""
    return respond(
        request, "workflow.html", status, active="workflows", plan=plan, versions=versions, total=total, problem=problem,
        typed=typed or {}, fields=fields_of(plan.input_schema), schema=schema, sampled=len(runs),
        drawing=draw({step.id: [edge.step for edge in step.dependencies] for step in plan.steps}),
        figures=await _figures(desk, [run.run_id for run in runs], slug), recent=runs[:8], policy=policy,
        difference=await _difference(desk, versions, request.query_params.get("from"), request.query_params.get("to")),
    )  # fmt: skip


async def _figures(desk: Desk, runs: list[str], slug: str) -> dict[str, tuple[StepDuration, int]]:
    """Durations and failures of each step over some runs."""
    counter = _StepCounter()
    await count_runs(desk.backend, [(run_id, slug) for run_id in runs], counter)
    return {step: (found.result(slug, step), counter.failed[step]) for step, found in counter.durations.items()}


def policy(step: PlanStep) -> str:
    """The budgets of a step in words."""
    attempts = sum(tier.attempts for tier in step.retry.tiers)
    parts = [f"{attempts} attempts" if attempts > 1 else "1 attempt"]
    if step.timeout_us:
        parts.append(f"{format_duration(step.timeout_us)} each")
    return ", ".join(parts)


async def _difference(
    desk: Desk, versions: list[WorkflowVersion], older: str | None, newer: str | None
) -> dict[str, Any] | None:
    """What changed between two versions, by number; None where none are named, or there is one version only."""
    numbers = {str(version.version_number): version for version in versions}
    if older is None and newer is None:
        if len(versions) < 2:
            return None
        older, newer = str(versions[1].version_number), str(versions[0].version_number)
    for name, given in (("from", older), ("to", newer)):
        if given not in numbers:
            raise InvalidArgument(name, given, f"the number of one of the newest {VERSIONS} versions")
    pair = [numbers[str(older)], numbers[str(newer)]]
    plans = [await plan_of_version(desk.backend, version.version_id) for version in pair]
    if None in plans:  # one was never submitted, so that only the names of its steps are known
        plans = [None, None]
    before, after = (manifest(version, plan) for version, plan in zip(pair, plans, strict=True))
    lines = list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]
    return {"older": pair[0].version_number, "newer": pair[1].version_number, "lines": lines}


def manifest(version: WorkflowVersion, plan: Plan | None) -> list[str]:
    """A version as lines to compare: its steps with what they need and how they are run, or their names alone."""
    if plan is None:
        return [f"step {step}" for step in version.step_manifest]
    lines = [
        f"on error: {plan.on_error}",
        f"timeout: {format_duration(plan.timeout_us) if plan.timeout_us else 'none'}",
    ]
    for step in plan.steps:
        needs = ", ".join(f"{edge.step} ({edge.kind})" for edge in step.dependencies) or "nothing"
        lines += [
            f"step {step.id}", f"    needs: {needs}", f"    queue: {step.queue}", f"    retries: {policy(step)}",
            f"    exported: {'yes' if step.export else 'no'}", f"    code: {step.code[:16] or 'unknown'}",
        ]  # fmt: skip
    schema = json.dumps(plan.input_schema, indent=2, sort_keys=True) if plan.input_schema else "none"
    return [*lines, *(f"input: {line}" for line in schema.splitlines())]
