"""The queue as the contract names it: submit, what is due, claim by name, and taking back what is stale.

Workers use turns instead; these serve tools, and callers that know the contract. All go by the indexes and
scripts that turns go by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from redisflow.backend import keys as k
from redisflow.backend.checks import (
    check_attempt,
    check_integer,
    check_span,
    check_step,
    check_steps,
    check_text,
    check_time,
)
from redisflow.backend.drafts import json_text
from redisflow.backend.inputs import check_input
from redisflow.backend.redis.header import parse_header, parse_step
from redisflow.backend.redis.recording import Recording
from redisflow.backend.redis.runs import LIVE, MOST_ROUNDS
from redisflow.backend.redis.walk import Walk
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim, Reclaimed, Submission, SubmitResult
from redisflow.codec import pack, unpack
from redisflow.model.errors import InvalidArgument
from redisflow.model.states import RunSubmission


class ScheduledStep(NamedTuple):
    """A step that stands in the queue."""

    workflow_slug: str
    run_id: str
    step_id: str


class Queue(Walk):
    """Queue methods of the contract."""

    async def submit_run(self, submission: RunSubmission) -> SubmitResult:
        """Submit a run of the registered workflow: available now, with priority 0 and an id of its own unless told otherwise.

        Args:
            submission: what to run.

        Returns:
            The run's id; `is_new` is False where its idempotency key was seen before.

        Raises:
            WorkflowNotFound, InvalidInput, InvalidArgument, PayloadTooLarge, RunExists: nothing was written.
        """
        if not isinstance(submission, RunSubmission):
            raise InvalidArgument("submission", submission, "a RunSubmission")
        plan = await self.registered_plan(k.check_slug(submission.workflow_slug))
        text = None if submission.input is None else json_text("input", submission.input)
        check_input(plan, text)
        spec = Submission(
            input=text, run_id=submission.run_id, available_at_us=submission.available_at, priority=submission.priority or 0,
            timeout_us=submission.timeout, idempotency_key=submission.idempotency_key, tags=submission.tags or (),
            metadata=submission.metadata,
        )  # fmt: skip
        return (await self.submit(plan, [spec]))[0]

    async def list_scheduled_steps(
        self, available_before: int | None = None, workflow_slug: str | None = None, limit: int | None = None
    ) -> list[ScheduledStep]:
        """Due steps of live runs, priority high to low, then by availableAt.

        Args:
            available_before: steps available at this time (µs since the epoch) or before; None: now.
            workflow_slug: only this workflow.
            limit: at most so many.

        Raises:
            InvalidArgument: an argument is out of range.
        """
        check_time("available_before", available_before)
        if workflow_slug is not None:
            k.check_slug(workflow_slug)
        check_integer("limit", limit, optional=True)
        before = await self.now() if available_before is None else available_before
        levels: dict[int, list[tuple[int, str]]] = {}
        for partition, keys in enumerate(self.opened):
            call = partial(self.client.zrangebyscore, keys.levels, "-inf", before)
            for member in await self.server.retry(call):
                queue, _, level = member.decode().rpartition(":")
                levels.setdefault(int(level), []).append((partition, queue))
        found: list[ScheduledStep] = []
        for level in sorted(levels, reverse=True):
            if limit is not None and len(found) >= limit:
                break
            due: list[tuple[float, ScheduledStep]] = []
            for partition, queue in levels[level]:
                due += await self._due_of(partition, queue, level, before, workflow_slug, limit)
            found += [step for _, step in sorted(due)]
        return found if limit is None else found[:limit]

    async def _due_of(
        self, partition: int, queue: str, level: int, before: int, slug: str | None, limit: int | None
    ) -> list[tuple[float, ScheduledStep]]:
        due: list[tuple[float, ScheduledStep]] = []
        async for page in self.scored_pages(self.partitions[partition].scheduled(queue, level), "-inf", before):
            members = [(at, member.decode().partition("|")) for member, at in page]
            heads = await self.heads_of(partition, {run_id for _, (run_id, _, _) in members})
            for at, (run_id, _, step_id) in members:
                head = heads.get(run_id)
                if head and head.live and slug in (None, head.slug):
                    due.append((at, ScheduledStep(head.slug, run_id, step_id)))
            if limit is not None and len(due) >= limit:
                break
        return due

    async def is_step_claimable(self, workflow_slug: str, run_id: str, step_id: str) -> bool:
        """Whether a step of a live run is scheduled and due; False where there is no such step."""
        check_step(workflow_slug, run_id, step_id)
        keys, partition = self.keys_of(run_id), self.partition(run_id)
        call = partial(self.client.hmget, keys.run(run_id), "h", f"s:{step_id}", "w")
        header, field, slug = await self.server.retry(call)
        if header is None or field is None:
            return False
        head, step = parse_header(header), parse_step(field)
        if head.status_word not in LIVE or step.status != "s":
            return False
        queue = await self._queue_of(partition, head.plan, step_id) if head.plan else (slug or b"-").decode()
        member = f"{run_id}|{step_id}"
        due = await self.server.retry(lambda: self.client.zscore(keys.scheduled(queue, step.level), member))
        return due is not None and due <= await self.now()

    async def _queue_of(self, partition: int, number: int, step_id: str) -> str:
        """Queue of a planned step; one that the plan does not know stands in that of its workflow."""
        key = self.partitions[partition].plan(number)
        packed = await self.server.retry(lambda: self.client.hget(key, f":{step_id}"))
        return str(unpack(packed)["queue"]) if packed else (await self.plan_info(partition, number)).slug

    async def claim_scheduled_step(
        self, workflow_slug: str, run_id: str, step_id: str, worker_id: str, *, dependencies: Sequence[str],
        slot_index: int | None = None, worker_concurrency: int | None = None,
    ) -> Claim | None:  # fmt: skip
        """Scheduled and due to running, for exactly one of any number of callers; None for the others.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            worker_id: who runs it.
            dependencies: recorded in StepStarted; where the run has no plan, their outputs come with the claim.
            slot_index: the worker's slot, from 0.
            worker_concurrency: slots that the worker has.

        Raises:
            InvalidArgument: an argument is out of range; nothing was written.
        """
        check_step(workflow_slug, run_id, step_id)
        names = check_steps("dependencies", dependencies)
        pairs: dict[str, Any] = {"wi": check_text("worker_id", worker_id), "dp": names}
        for argument, code, value, least in (
            ("slot_index", "sl", slot_index, 0), ("worker_concurrency", "wc", worker_concurrency, 1),
        ):  # fmt: skip
            check_integer(argument, value, least, optional=True)
            if value is not None:
                pairs[code] = value
        partition = self.partition(run_id)
        # the plan's own dependencies stand before these in the envelope, and of two equal names the later counts
        body = pack(pairs)[1:]
        reply = await self.call("claim", partition, run_id=run_id, step=step_id, body=body, pairs_in_body=len(pairs))
        if reply[0] != Reply.OK:
            return None
        claim = await self.resolve_claim(partition, reply[1], reply[2])
        if claim.plan_number or not names:
            return claim
        return replace(claim, outputs={**await self._outputs_of(run_id, names), **claim.outputs})

    async def _outputs_of(self, run_id: str, names: Sequence[str]) -> Mapping[str, str]:
        """JSON text of the output of each of these steps that has completed."""
        key = self.keys_of(run_id).run(run_id)
        fields = [field for name in names for field in (f"s:{name}", f"o:{name}")]
        stored = await self.server.retry(lambda: self.client.hmget(key, fields))
        found = {}
        for name, field, output in zip(names, stored[::2], stored[1::2], strict=True):
            if field and output and parse_step(field).status == "c":
                found[name] = await self._payload(self.partition(run_id), run_id, output) or "null"
        return found

    async def reclaim_stale_steps(self, stale_threshold_us: int, reclaimed_by: str) -> list[Reclaimed]:
        """Take back every running step whose last heartbeat, else start, is longer ago, in all partitions.

        Each is scheduled again or fails by its policy in the same script; without a plan it is scheduled again.

        Args:
            stale_threshold_us: age from which a step is stale, exclusive.
            reclaimed_by: recorded in StepReclaimed.

        Returns:
            What was taken back, and from whom.

        Raises:
            InvalidArgument: an argument is out of range; nothing was written.
        """
        check_span("stale_threshold_us", stale_threshold_us)
        check_text("reclaimed_by", reclaimed_by)
        taken: list[Reclaimed] = []
        for partition in range(len(self.opened)):
            for _ in range(MOST_ROUNDS):
                found = await self.reclaim_round(partition, threshold_us=stale_threshold_us, reclaimed_by=reclaimed_by)
                taken += found.reclaimed
                if not found.more:
                    break
        return taken

    def get_step_output_path(
        self, workflow_slug: str, run_id: str, step_id: str, attempt_number: int, lease: int | None = None
    ) -> Path:
        """Absolute path below the spool folder where an isolated step's child writes its output.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            step_id: the step.
            attempt_number: the attempt.
            lease: of the claim; tells two executions of one attempt apart.

        Raises:
            InvalidArgument: an argument is out of range.
        """
        check_step(workflow_slug, run_id, step_id)
        check_attempt("attempt_number", attempt_number)
        check_integer("lease", lease, 1, optional=True)
        return Recording.get_step_output_path(self, workflow_slug, run_id, step_id, attempt_number, lease)
