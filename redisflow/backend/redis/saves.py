"""Saves on Redis: events as they are given, appended and folded by one script, and what is there to find of them.

The engine's transitions never come this way. A run whose first event comes this way has no plan: its slug stands in its hash, its
steps in the queue of that name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.checks import check_list
from redisflow.backend.drafts import Checked, GivenEvent, check_event, make_event
from redisflow.backend.histories import Histories
from redisflow.backend.redis.header import STATUSES, parse_step
from redisflow.backend.redis.queue import Queue
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.replies import Reply
from redisflow.backend.saves_steps import HeartbeatSlot, StepSaves
from redisflow.backend.saves_workflow import WorkflowSaves
from redisflow.codec import encode_event, unpack
from redisflow.model.errors import InvalidArgument, RedisflowError, RunNotFound

CREATING = ("RunSubmitted", "WorkflowStarted")
_SLOT = frozenset(HeartbeatSlot.__annotations__)


class Saves(Queue, StepSaves, WorkflowSaves, Histories):
    """Appends, and the saves and reads that follow from them."""

    async def initialize_run(self, workflow_slug: str, run_id: str) -> None:
        """Refuse ids that cannot be a run's; nothing is written, since a run begins with its first event.

        Raises:
            InvalidArgument: names the id.
        """
        k.check_slug(workflow_slug)
        k.check_run_id(run_id)

    async def batch_append_events(self, events: Sequence[tuple[str, str, GivenEvent]]) -> list[str]:
        """See `Appends`: one script a partition, all sent at once."""
        by_partition: dict[int, list[int]] = {}
        rows: list[list[Any]] = []
        items = check_list("events", events, "(workflow slug, run id, event)")
        for index, item in enumerate(items):
            if not isinstance(item, Sequence) or isinstance(item, str) or len(item) != 3:
                raise InvalidArgument(f"events.{index}", item, "(workflow slug, run id, event)")
            slug, run_id, event = item
            checked = check_event(slug, run_id, event, limit=self.settings.max_payload_bytes)
            rows.append(_row(slug, run_id, checked))
            by_partition.setdefault(self.partition(run_id), []).append(index)
        await self.note_slugs({slug for (slug, _, _), row in zip(items, rows, strict=True) if row[1] in CREATING})
        ids = [""] * len(rows)

        async def append(partition: int, indexes: Sequence[int]) -> None:
            reply = await self.call("append", partition, [word for index in indexes for word in rows[index]])
            if reply[0] == Reply.GONE:
                raise RunNotFound(reply[1].decode())
            if reply[0] == Reply.REJECTED:
                given = [rows[index][5] for index in indexes if rows[index][5]]
                if not given or b"future" not in reply[1]:
                    raise RedisflowError(f"events were refused: {reply[1].decode()}")
                raise InvalidArgument("eventId", given[0] if len(given) == 1 else given, reply[1].decode())
            for index, event_id in zip(indexes, reply[1], strict=True):
                ids[index] = event_id.decode()

        answers = await asyncio.gather(*(append(*item) for item in by_partition.items()), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return ids

    async def save_step_heartbeat(
        self, workflow_slug: str, run_id: str, step_id: str, worker_id: str, attempt_number: int,
        slot: HeartbeatSlot | None = None,
    ) -> None:  # fmt: skip
        """StepHeartbeat; the lease moves only where this worker runs this attempt.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            worker_id: who runs it.
            attempt_number: the attempt.
            slot: slot_index, worker_concurrency, resource_snapshot.

        Raises:
            InvalidArgument: an argument is out of range; nothing was written.
            RunNotFound: there is no such run.
        """
        if slot is not None and not (isinstance(slot, dict) and slot.keys() <= _SLOT):
            raise InvalidArgument("slot", slot, f"a dict of {', '.join(sorted(_SLOT))}")
        event = make_event(
            "StepHeartbeat", workflow_slug, run_id, step_id=step_id, worker_id=worker_id,
            attempt_number=attempt_number, **(slot or {}),
        )  # fmt: skip
        beat = int((await self._save(workflow_slug, run_id, event))[0])
        if await self._is_running(run_id, step_id, worker_id, attempt_number):
            keys, member = self.keys_of(run_id), f"{run_id}|{step_id}"
            # XX and GT: a step that ended meanwhile stays out, and a later beat stands
            await self.server.retry(lambda: self.client.zadd(keys.running, {member: beat}, xx=True, gt=True))

    async def _is_running(self, run_id: str, step_id: str, worker_id: str, attempt: int) -> bool:
        keys = self.keys_of(run_id)
        field = await self.server.retry(lambda: self.client.hget(keys.run(run_id), f"s:{step_id}"))
        step = parse_step(field) if field else None
        if step is None or step.status != "r" or step.attempt != attempt:
            return False
        call = partial(self.client.xrange, keys.events(run_id), min=str(step.lease), max=str(step.lease))
        return any(
            entry[b"type"] == b"StepStarted" and entry[b"step"].decode() == step_id
            and unpack(entry[b"data"]).get("wi") == worker_id
            for _, entry in await self.server.retry(call)
        )  # fmt: skip

    async def run_exists(self, workflow_slug: str, run_id: str) -> bool:
        """Whether a run has events: from its first to its deletion."""
        k.check_slug(workflow_slug)
        key = self.keys_of(k.check_run_id(run_id)).run(run_id)
        return bool(await self.server.retry(lambda: self.client.hexists(key, "h")))

    async def list_run_ids(self, workflow_slug: str) -> list[str]:
        """Ids of a workflow's runs, newest first."""
        k.check_slug(workflow_slug)

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for keys in self.opened:
                for status in STATUSES.values():
                    pipe.zrange(keys.index(workflow_slug, status), 0, -1, desc=True, withscores=True)
            found: list[Any] = await pipe.execute()
            return found

        pairs = {(-score, run_id.decode()) for page in await self.server.retry(read) for run_id, score in page}
        return [run_id for _, run_id in sorted(pairs)]

    async def list_active_workflows(self) -> list[str]:
        """Slugs of workflows with a run that has not ended, registered or not."""
        known = await self.slugs_with_runs()

        async def read() -> list[int]:
            pipe = self.client.pipeline(transaction=False)
            for slug in known:
                for keys in self.partitions:
                    for status in LIVE:
                        pipe.zcard(keys.index(slug, status))
            found: list[int] = await pipe.execute()
            return found

        counts = await self.server.retry(read) if known else []
        each = len(self.partitions) * len(LIVE)
        return [slug for place, slug in enumerate(known) if any(counts[place * each : (place + 1) * each])]


def _row(slug: str, run_id: str, checked: Checked) -> list[Any]:
    """The six words of an event for the script."""
    wire = checked.wire
    own: dict[str, Any] = {"sv": 1, "ts": checked.timestamp_us}
    if wire["type"] in CREATING:
        own["wf"] = slug
    try:
        kind, step, data, payload = encode_event(wire, **own)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgument("event", wire["type"], f"values that can be stored ({error})") from None
    return [run_id, kind, step, data, payload, checked.event_id]
