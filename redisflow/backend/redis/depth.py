"""What waits and runs now: in all, of one workflow, and by workflow.

Runs are counted by their indexes, running steps one by one (there are no more than workers run). Scheduled
steps are counted a queue at a time where all of a queue belongs together: where nobody asks whose they are,
or where it is a workflow's own queue and no other plan names it. Only in a shared queue each step is looked
at.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.redis.error_queries import ErrorQueries
from redisflow.codec import decode_payload
from redisflow.model.analytics import QueueDepth, WorkflowQueueDepth
from redisflow.settings import Settings

TOGETHER = "*"
"""Stands for the workflow where nobody asks for it; no slug has a star."""


@dataclass
class _Tally:
    pending: int = 0
    running: int = 0
    scheduled: int = 0
    running_steps: int = 0
    oldest_run: int | None = None
    oldest_step: int | None = None

    def add_steps(self, count: int, oldest: float) -> None:
        self.scheduled += count
        self.oldest_step = _least(self.oldest_step, int(oldest))

    def add(self, other: _Tally) -> None:
        self.pending += other.pending
        self.running += other.running
        self.scheduled += other.scheduled
        self.running_steps += other.running_steps
        self.oldest_run = _least(self.oldest_run, other.oldest_run)
        self.oldest_step = _least(self.oldest_step, other.oldest_step)


Tallies = dict[str, _Tally]


class QueueDepths(ErrorQueries):
    """Snapshots of queues; partitions are read one after the other while the engine goes on."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._plan_queues: dict[tuple[int, int], dict[str, set[str]]] = {}

    async def get_queue_depth(self, workflow_slug: str | None = None) -> QueueDepth:
        """Live runs and their scheduled and running steps, those not yet due included.

        Args:
            workflow_slug: only this workflow.

        Raises:
            InvalidArgument: the slug cannot be one.
        """
        if workflow_slug is not None:
            k.check_slug(workflow_slug)
        tallies = await self._tallies(workflow_slug, split=workflow_slug is not None)
        total = _Tally()
        for slug, tally in tallies.items():
            if workflow_slug in (None, slug):
                total.add(tally)
        return QueueDepth(
            workflow_slug=workflow_slug, pending_runs=total.pending, running_runs=total.running,
            scheduled_steps=total.scheduled, running_steps=total.running_steps,
            oldest_scheduled_step_us=total.oldest_step, oldest_pending_run_us=total.oldest_run,
        )  # fmt: skip

    async def get_queue_depth_by_workflow(self) -> list[WorkflowQueueDepth]:
        """Workflows with pending runs or scheduled steps, those with most of both first, then by slug."""
        names = {str(record["slug"]): str(record["name"]) for record in await self.workflow_records()}
        found = [
            WorkflowQueueDepth(
                workflow_slug=slug, workflow_name=names.get(slug), pending_runs=tally.pending,
                scheduled_steps=tally.scheduled,
                oldest_pending_item_us=_least(tally.oldest_run, tally.oldest_step),
            )
            for slug, tally in (await self._tallies(None, split=True)).items()
            if tally.pending or tally.scheduled
        ]  # fmt: skip
        return sorted(found, key=lambda depth: (-depth.pending_runs - depth.scheduled_steps, depth.workflow_slug))

    async def _tallies(self, only: str | None, *, split: bool) -> Tallies:
        tallies: Tallies = {}
        for partition in range(len(self.opened)):
            await self._count_runs(partition, only, tallies)
            await self._count_running(partition, tallies)
            await self._count_scheduled(partition, only, tallies, split=split)
        return tallies

    async def _count_runs(self, partition: int, only: str | None, tallies: Tallies) -> None:
        keys = self.partitions[partition]
        slugs = [only] if only is not None else await self.slugs_with_runs()

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for slug in slugs:
                pipe.zcard(keys.index(slug, "pending"))
                pipe.zrange(keys.index(slug, "pending"), 0, 0, withscores=True)
                pipe.zcard(keys.index(slug, "running"))
            found: list[Any] = await pipe.execute()
            return found

        replies = await self.server.retry(read) if slugs else []
        for number, slug in enumerate(slugs):
            pending, oldest, running = replies[3 * number : 3 * number + 3]
            created = int(oldest[0][1]) if oldest else None
            tallies.setdefault(slug, _Tally()).add(_Tally(pending, running, oldest_run=created))

    async def _count_running(self, partition: int, tallies: Tallies) -> None:
        async for slug, _ in self._members(partition, self.partitions[partition].running):
            tallies.setdefault(slug, _Tally()).running_steps += 1

    async def _count_scheduled(self, partition: int, only: str | None, tallies: Tallies, *, split: bool) -> None:
        keys = self.partitions[partition]
        levels = await self.server.retry(lambda: self.client.zrange(keys.levels, 0, -1))
        places = [(member.decode(), f"{keys.prefix}scheduled:{member.decode()}") for member in levels]
        leaving = await self._members_are_leaving(partition)
        owners = await self._owners(partition) if split else {}
        for member, key in places:
            queue = member.rpartition(":")[0]
            # without a plan a run's queue is its slug: any queue may hold steps of the workflow of its name
            slugs = owners.get(queue, set()) | {queue} if split else {TOGETHER}
            if only is not None and only not in slugs:
                continue
            if leaving or len(slugs) > 1:
                async for slug, at in self._members(partition, key):
                    tallies.setdefault(slug, _Tally()).add_steps(1, at)
            else:
                await self._count_queue(key, tallies.setdefault(slugs.pop(), _Tally()))

    async def _count_queue(self, key: str, tally: _Tally) -> None:
        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
            found: list[Any] = await pipe.execute()
            return found

        count, head = await self.server.retry(read)
        if head:
            tally.add_steps(count, head[0][1])

    async def _members(self, partition: int, key: str) -> AsyncIterator[tuple[str, float]]:
        """Workflow and score of each `<run>|<step>` of a sorted set whose run is live; an anchor is none."""
        async for page in self.scored_pages(key, "-inf", "+inf"):
            places = [(member.decode().partition("|")[0], at) for member, at in page if b"|" in member]
            heads = await self.heads_of(partition, {run_id for run_id, _ in places})
            for run_id, at in places:
                head = heads.get(run_id)
                if head is not None and head.live:
                    yield head.slug, at

    async def _members_are_leaving(self, partition: int) -> bool:
        """Whether a large run has ended whose steps still stand in queues."""
        key = self.partitions[partition].expand
        members = await self.server.retry(lambda: self.client.zrange(key, 0, -1))
        heads = await self.heads_of(partition, [member.decode() for member in members])
        return not all(head.live for head in heads.values())

    async def _owners(self, partition: int) -> dict[str, set[str]]:
        """The workflows whose plans name a queue, by queue; kept for good, since plans never change."""
        keys = self.partitions[partition]
        owners: dict[str, set[str]] = {}
        for raw in await self.server.retry(lambda: self.client.hvals(keys.plans)):
            number = int(raw)
            if (partition, number) not in self._plan_queues:
                key = keys.plan(number)
                plan = decode_payload(await self.server.retry(partial(self.client.hget, key, "json")))
                queues = {step["queue"]: {plan["slug"]} for step in plan["steps"]}
                self._plan_queues[partition, number] = queues
            for queue, slugs in self._plan_queues[partition, number].items():
                owners.setdefault(queue, set()).update(slugs)
        return owners


def _least(one: int | None, other: int | None) -> int | None:
    known = [value for value in (one, other) if value is not None]
    return min(known, default=None)
