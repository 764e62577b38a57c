"""Registered workflows: their plans in every partition, and what is known of them by slug and by version.

What submits by slug use stands in one hash, the versions of a workflow in another, one field each. A version has no stored
number: it is counted on reading, by (createdAt, id), so that two registered at once can never get the same one.
Everything that is there already is left alone, since a worker must be able to start while memory is full.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import ValidationError

from redisflow.backend import keys as k
from redisflow.backend.checks import check_integer, check_text, check_time
from redisflow.backend.git import git_info
from redisflow.backend.plans import plan_fields
from redisflow.backend.redis.core import RedisCore
from redisflow.backend.schemas import make_validator, why_no_schema
from redisflow.model.errors import InvalidArgument, StepNotFound, WorkflowNotFound
from redisflow.model.states import (
    GitInfo,
    StepDefinition,
    WorkflowMetadata,
    WorkflowRegistration,
    WorkflowVersion,
)
from redisflow.model.workflow import Edge, Plan, PlanStep
from redisflow.settings import Settings

Record = dict[str, Any]


class Registry(RedisCore):
    """Plans, workflow records and versions."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._noted_slugs: set[str] = set()

    async def register_plan(self, plan: Plan, *, location: str | None = None) -> None:
        """Make a plan the one that submits by slug use; every version stays registered.

        Args:
            plan: the compiled workflow; a known version again is a rollback to it, and keeps its `createdAt`.
            location: source file of the workflow, for people, and to find its commit.
        """
        record = _record(plan, location)
        known = await self._registration_of(plan.slug)
        same = known is not None and all(known.get(name) == record[name] for name in ("version", "plan"))
        if known is not None and same and (known.get("location") or not location):
            record = known  # a worker at another path says nothing new
        await self._put(plan, record, known)

    async def register_workflow(self, registration: WorkflowRegistration) -> None:
        """Register a workflow by its description; it replaces the earlier registration whole.

        Args:
            registration: slug, name, steps with what they need, and the input's JSON Schema, as an object or its text.

        Raises:
            InvalidArgument: names what no plan can be made of; nothing was written.
        """
        plan = compile_registration(registration)
        record = _record(plan, registration.location)
        record["registration"] = registration.model_dump(mode="json", by_alias=True)
        await self._put(plan, record, await self._registration_of(plan.slug))

    async def _put(self, plan: Plan, record: Record, known: Record | None) -> None:
        """The version first: whoever sees the registration finds its version."""
        key = k.versions(self.namespace, plan.slug)
        if not await self.server.retry(lambda: self.client.hexists(key, plan.version)):
            git = await git_info(record["location"])
            manifest = [step.id for step in plan.steps]
            await self._put_version(plan.slug, plan.version, await self.now(), manifest, len(manifest), git)
        if record != known:
            text = json.dumps(record)
            await self.server.retry(lambda: self.client.hset(k.workflows(self.namespace), plan.slug, text))

    async def _put_version(
        self, slug: str, version_id: str, created_at: int, manifest: list[str], total: int, git: GitInfo | None
    ) -> None:
        record = {
            "createdAt": created_at, "stepManifest": manifest, "totalSteps": total,
            "git": git.to_wire() if git else None,
        }  # fmt: skip
        key, text = k.versions(self.namespace, slug), json.dumps(record)
        await self.server.retry(lambda: self.client.hsetnx(key, version_id, text))

    async def plan_number(self, plan: Plan, partition: int) -> int:
        """Number of a plan in a partition; it is registered there where it is not."""
        number = self._plan_numbers.get((partition, plan.version))
        if number is None:
            reply = await self.call("register", partition, list(plan_fields(plan)), version=plan.version)
            number = int(reply[1])
            self._plan_numbers[(partition, plan.version)] = number
        return number

    async def registered_plan(self, slug: str) -> Plan:
        """The plan that submits by slug use.

        Raises:
            WorkflowNotFound: no workflow is registered under the slug.
        """
        record = await self._registration_of(slug)
        if record is None:
            raise WorkflowNotFound(slug, await self.workflow_slugs())
        return Plan.model_validate(record["plan"])

    async def stored_plan(self, partition: int, number: int) -> Plan:
        """The plan of a number in a partition."""
        key = self.partitions[partition].plan(number)
        return Plan.model_validate_json(await self.server.retry(lambda: self.client.hget(key, "json")))

    async def plan_of_version(self, slug: str, version: str) -> Plan | None:
        """The plan of a version that was registered or submitted here; None where there is none."""
        for partition, keys in enumerate(self.partitions):
            number = await self.server.retry(partial(self.client.hget, keys.plans, version))
            if number is not None:
                found = await self.stored_plan(partition, int(number))
                return found if (found.slug, found.version) == (slug, version) else None
        record = await self._registration_of(slug)
        return Plan.model_validate(record["plan"]) if record and record["version"] == version else None

    async def note_slugs(self, slugs: set[str]) -> None:
        """Remember workflows before runs of theirs are saved, so that no run is out of sight."""
        fresh = sorted(slugs - self._noted_slugs)
        if fresh:
            await self.server.retry(lambda: self.client.sadd(k.saved_slugs(self.namespace), *fresh))
            self._noted_slugs.update(fresh)

    async def noted_slugs(self) -> set[str]:
        """Workflows of saved runs, registered or not."""
        found = await self.server.retry(lambda: self.client.smembers(k.saved_slugs(self.namespace)))
        return {slug.decode() for slug in found}

    async def _registration_of(self, slug: str) -> Record | None:
        text = await self.server.retry(lambda: self.client.hget(k.workflows(self.namespace), slug))
        record: Record | None = None if text is None else json.loads(text)
        return record

    async def workflow_slugs(self) -> list[str]:
        """Slugs of all registered workflows."""
        found = await self.server.retry(lambda: self.client.hkeys(k.workflows(self.namespace)))
        return sorted(slug.decode() for slug in found)

    async def workflow_records(self) -> list[Record]:
        """All registered workflows: slug, name, version, location and plan."""
        found = await self.server.retry(lambda: self.client.hvals(k.workflows(self.namespace)))
        return sorted((json.loads(text) for text in found), key=lambda record: str(record["slug"]))

    async def get_workflow_metadata(self, workflow_slug: str) -> WorkflowMetadata | None:
        """Name, location and input schema of a workflow; None where it is not registered."""
        record = await self._registration_of(k.check_slug(workflow_slug))
        return None if record is None else _metadata(record)

    async def list_workflow_metadata(self) -> list[WorkflowMetadata]:
        """Name, location and input schema of all registered workflows, by slug."""
        return [_metadata(record) for record in await self.workflow_records()]

    async def get_workflow_steps(self, workflow_slug: str) -> list[StepDefinition]:
        """Steps of a workflow as they were registered; [] where it is not."""
        record = await self._registration_of(k.check_slug(workflow_slug))
        return [] if record is None else list(_registration(record).steps)

    async def calculate_dependents(self, workflow_slug: str, step_id: str) -> list[str]:
        """Steps that depend on a step, directly or through others, without itself; in declaration order.

        Raises:
            WorkflowNotFound: no workflow is registered under the slug.
            StepNotFound: it has no such step.
        """
        k.check_step_id(step_id)
        plan = await self.registered_plan(k.check_slug(workflow_slug))
        if all(step.id != step_id for step in plan.steps):
            raise StepNotFound(step_id, f"workflow {workflow_slug!r}")
        found = {step_id}
        for step in plan.steps:  # what a step depends on stands above it
            if any(edge.step in found for edge in step.dependencies):
                found.add(step.id)
        return [step.id for step in plan.steps if step.id in found - {step_id}]

    async def create_workflow_version(self, version: WorkflowVersion) -> None:
        """Record a version; one whose id is known stays as it is. Its number follows from `created_at` (µs).

        Raises:
            InvalidArgument: the slug cannot be one, or the version has no id.
        """
        if not isinstance(version, WorkflowVersion):
            raise InvalidArgument("version", version, "a WorkflowVersion")
        k.check_slug(version.workflow_slug)
        check_text("version_id", version.version_id)
        check_time("created_at", version.created_at)
        await self._put_version(
            version.workflow_slug, version.version_id, version.created_at, list(version.step_manifest),
            version.total_steps, version.git,
        )  # fmt: skip

    async def get_workflow_version(self, workflow_slug: str, version_id: str) -> WorkflowVersion | None:
        """A version by its id; None where there is none."""
        check_text("version_id", version_id)
        versions = await self.list_workflow_versions(workflow_slug)
        return next((version for version in versions if version.version_id == version_id), None)

    async def get_current_workflow_version(self, workflow_slug: str) -> WorkflowVersion | None:
        """The version with the latest `createdAt`; None where there is none."""
        return next(iter(await self.list_workflow_versions(workflow_slug, 1)), None)

    async def list_workflow_versions(self, workflow_slug: str, limit: int | None = None) -> list[WorkflowVersion]:
        """Versions of a workflow, newest first; number 1 is the oldest.

        Args:
            workflow_slug: the workflow; one that is not known has none.
            limit: how many at most; None for all.

        Raises:
            InvalidArgument: the slug cannot be one, or `limit` is no number from 0 on.
        """
        key = k.versions(self.namespace, k.check_slug(workflow_slug))
        check_integer("limit", limit, optional=True)
        found = await self.server.retry(lambda: self.client.hgetall(key))
        records = {version.decode(): json.loads(text) for version, text in found.items()}
        ordered = sorted(records.items(), key=lambda item: (item[1]["createdAt"], item[0]))
        versions = [
            WorkflowVersion.model_validate(
                {"workflowSlug": workflow_slug, "versionId": version, "versionNumber": number, **record}
            )
            for number, (version, record) in enumerate(ordered, 1)
        ]
        return versions[::-1][:limit]


def compile_registration(registration: WorkflowRegistration) -> Plan:
    """The plan that a registration stands for: every dependency is required, the queue is the slug.

    Raises:
        InvalidArgument: names what no plan can be made of.
    """
    if not isinstance(registration, WorkflowRegistration):
        raise InvalidArgument("registration", registration, "a WorkflowRegistration")
    slug = k.check_slug(registration.slug, "slug")
    schema = _schema(registration.input_schema_json)
    needs_input = schema is not None and not make_validator(schema).is_valid(None)
    try:
        steps = tuple(_plan_step(step, slug) for step in _in_order(registration.steps))
        return Plan(slug=slug, name=registration.name, steps=steps, input_schema=schema, input_required=needs_input)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise InvalidArgument("steps", problem["input"], f"{place} {problem['msg']}".strip()) from None


def _plan_step(step: StepDefinition, queue: str) -> PlanStep:
    edges = tuple(Edge(step=name, kind="required") for name in step.dependencies)
    return PlanStep(
        id=step.id, name=step.name, dependencies=edges, params=step.dependencies, queue=queue, export=step.export_output
    )


def _in_order(steps: Sequence[StepDefinition]) -> list[StepDefinition]:
    """The steps as given, each moved down as far as those it depends on demand."""
    unknown = {name for step in steps for name in step.dependencies} - {step.id for step in steps}
    if unknown:
        raise InvalidArgument("dependencies", min(unknown), "ids of steps of the same workflow")
    ordered: list[StepDefinition] = []
    placed: set[str] = set()
    waiting = list(steps)
    while waiting:
        left = []
        for step in waiting:
            if placed.issuperset(step.dependencies):
                ordered.append(step)
                placed.add(step.id)
            else:
                left.append(step)
        if len(left) == len(waiting):
            raise InvalidArgument("dependencies", left[0].id, "dependencies without a circle")
        waiting = left
    return ordered


def _schema(given: Any) -> dict[str, Any] | None:
    """The input's JSON Schema from an object or its text; None where there is none."""
    expected = "a JSON Schema object, or its text"
    try:
        schema = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise InvalidArgument("inputSchemaJSON", given, f"{expected} ({error.args[0]})") from None
    if schema is None:
        return None
    if not isinstance(schema, Mapping):
        raise InvalidArgument("inputSchemaJSON", given, expected)
    if (why := why_no_schema(schema)) is not None:
        raise InvalidArgument("inputSchemaJSON", given, f"{expected} ({why})")
    return dict(schema)


def _record(plan: Plan, location: str | None) -> Record:
    return {
        "slug": plan.slug, "name": plan.name, "version": plan.version, "location": location,
        "plan": plan.model_dump(mode="json"),
    }  # fmt: skip


def _registration(record: Record) -> WorkflowRegistration:
    """A workflow as it was registered; one that came as a plan is described by it."""
    if "registration" in record:
        return WorkflowRegistration.model_validate(record["registration"])
    plan = Plan.model_validate(record["plan"])
    steps = tuple(
        StepDefinition(
            id=step.id, name=step.name, dependencies=tuple(edge.step for edge in step.dependencies),
            export_output=step.export,
        )
        for step in plan.steps
    )  # fmt: skip
    return WorkflowRegistration(
        slug=plan.slug,
        name=plan.name,
        location=record.get("location"),
        input_schema_json=plan.input_schema,
        steps=steps,
    )


def _metadata(record: Record) -> WorkflowMetadata:
    found = _registration(record)
    return WorkflowMetadata(
        slug=found.slug, name=found.name, location=found.location, input_schema_json=found.input_schema_json
    )
