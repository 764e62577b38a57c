"""Registered workflows: their plans in every partition, and what is known of them by slug."""

from __future__ import annotations

import json
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.plans import plan_fields
from redisflow.backend.redis.core import RedisCore
from redisflow.model.errors import WorkflowNotFound
from redisflow.model.workflow import Plan


class Registry(RedisCore):
    """Plans and workflow records."""

    async def register_plan(self, plan: Plan, *, location: str | None = None) -> None:
        """Make a plan the one that submits by slug use; every version stays registered."""
        record = {
            "slug": plan.slug, "name": plan.name, "version": plan.version, "location": location,
            "plan": plan.model_dump(mode="json"),
        }  # fmt: skip
        key, text = k.workflows(self.namespace), json.dumps(record)
        known = await self.server.retry(lambda: self.client.hget(key, plan.slug))
        if known is None or known.decode() != text:  # a worker must be able to start while memory is full
            await self.server.retry(lambda: self.client.hset(key, plan.slug, text))

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
        text = await self.server.retry(lambda: self.client.hget(k.workflows(self.namespace), slug))
        if text is None:
            raise WorkflowNotFound(slug, await self.workflow_slugs())
        return Plan.model_validate(json.loads(text)["plan"])

    async def workflow_slugs(self) -> list[str]:
        """Slugs of all registered workflows."""
        found = await self.server.retry(lambda: self.client.hkeys(k.workflows(self.namespace)))
        return sorted(slug.decode() for slug in found)

    async def workflow_records(self) -> list[dict[str, Any]]:
        """All registered workflows: slug, name, version, location and plan."""
        found = await self.server.retry(lambda: self.client.hvals(k.workflows(self.namespace)))
        return sorted((json.loads(text) for text in found), key=lambda record: str(record["slug"]))
