"""Runs that go on or start again: retry of a failed run, resume, rerun from a step, copies and deletions of events.

A rerun lives in its parent's partition, so that one script makes it whole from the parent's stream. Copies to other partitions
go by one `append`, which is as atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.checks import check_flag, check_note, check_steps
from redisflow.backend.drafts import json_text
from redisflow.backend.inputs import check_input
from redisflow.backend.redis.upkeep import Upkeep
from redisflow.backend.replies import Reply, check_written
from redisflow.codec import decode_event, pack, unpack
from redisflow.model.errors import RunExists, RunNotFound, StepNotFound, TransitionRefused
from redisflow.model.workflow import Plan

TERMINAL = frozenset({"WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled"})
FINISHED = ("completed", "skipped")
_WORDS = {"p": "pending", "r": "running", "c": "completed", "f": "failed", "x": "cancelled"}


class Reruns(Upkeep):
    """What happens to a run after its end, or to its events by hand."""

    async def retry_run(self, run_id: str, reason: str | None = None) -> int:
        """Start a failed run anew where it stopped: completed and skipped steps stay, budgets and deadline start afresh.

        Returns:
            How many steps were scheduled.

        Raises:
            RunNotFound: there is no such run.
            TransitionRefused: it is live, completed or cancelled.
        """
        pair = pack({"r": reason})[1:] if check_note("reason", reason) else b""
        while True:
            reply = await self.call("retry", self.partition(k.check_run_id(run_id)), run_id=run_id, reason=pair)
            if reply[0] == Reply.OK:
                return int(reply[1])
            if reply[0] == Reply.GONE:
                raise RunNotFound(run_id)
            if reply[0] == Reply.NO_PLAN:
                raise TransitionRefused(f"run {run_id} was imported without its plan: rerun it from a step instead")
            check_written(reply, run_id)
            if reply[0] != Reply.MORE:
                status = _WORDS[reply[1].decode()]
                raise TransitionRefused(
                    f"run {run_id} is {status}: only a failed run can be retried; rerun it from a step instead"
                )

    async def resume_run(self, run_id: str) -> tuple[int, int]:
        """Look a live run over once more and record that; whatever is ready and not scheduled follows.

        Returns:
            Completed steps, and steps left.

        Raises:
            RunNotFound: there is no such run.
            TransitionRefused: it has ended.
        """
        reply = await self.call("resume", self.partition(k.check_run_id(run_id)), run_id=run_id)
        if reply[0] == Reply.GONE:
            raise RunNotFound(run_id)
        if reply[0] == Reply.RUN_ENDED:
            raise TransitionRefused(f"run {run_id} is {_WORDS[reply[1].decode()]}: retry it, or rerun it from a step")
        check_written(reply, run_id)
        return int(reply[1]), int(reply[2])

    async def rerun_from(self, parent_run_id: str, from_step_id: str, input: object = None) -> str:
        """A new run of the workflow's current version that repeats a step and all that depends on it.

        Finished steps outside of these keep their events and outputs; unfinished ones start anew. Priority, tags, metadata and
        timeout carry over, the idempotency key does not.

        Args:
            parent_run_id: an ended run.
            from_step_id: the step to repeat.
            input: a new input; None keeps the parent's.

        Returns:
            The new run's id.

        Raises:
            RunNotFound: the parent is gone, or its retention has ended half-way.
            StepNotFound: the current version has no such step.
            TransitionRefused: the parent has not ended.
            InvalidInput: a new input does not fit the schema of the current version; the parent's is taken as it is.
        """
        k.check_run_id(parent_run_id, "parent_run_id")
        return await self._rerun(parent_run_id, k.check_step_id(from_step_id, "from_step_id"), input)

    async def rerun_whole(self, parent_run_id: str) -> str:
        """As `rerun_from`, of every step: from the one root, or, where there are several, from all; the lineage names the first.

        Raises:
            RunNotFound, TransitionRefused: as `rerun_from`.
        """
        return await self._rerun(k.check_run_id(parent_run_id, "parent_run_id"), None, None)

    async def _rerun(self, parent_run_id: str, from_step_id: str | None, input: object) -> str:
        events = await self.load_wire_events(parent_run_id)
        submitted = next((event for event in events if event["type"] == "RunSubmitted"), None)
        if submitted is None:
            raise RunNotFound(parent_run_id)
        plan = await self.registered_plan(submitted["workflowSlug"])
        if from_step_id is None:
            from_step_id, repeated = plan.roots[0], [step.id for step in plan.steps]
        else:
            repeated = dependents_of(plan, from_step_id)
        states = await self.load_step_states(parent_run_id)
        kept = [
            step.id for step in plan.steps
            if step.id not in repeated and step.id in states and states[step.id].status in FINISHED
        ]  # fmt: skip
        started = next((event["versionId"] for event in events if event["type"] == "WorkflowStarted"), "unknown")
        lineage = {"pr": parent_run_id, "rf": from_step_id, "ri": repeated, "vi": plan.version, "pv": started}
        text = submitted.get("input", "")
        if input is not None:
            limit = self.settings.max_payload_bytes
            text = json_text("input", input, limit=limit)
            check_input(plan, text)
        partition = self.partition(parent_run_id)
        while True:
            run_id = k.new_run_id(parent_run_id.partition(".")[0])
            fields = _carried(submitted)
            fields |= {"pl": await self.plan_number(plan, partition), "hs": plan.input_schema is not None}
            reply = await self.call(
                "rerun", partition, kept, run_id=run_id, parent_id=parent_run_id, envelope=pack(fields), input=text,
                lineage=pack(lineage),
            )  # fmt: skip
            if reply[0] == Reply.OK:
                return run_id
            if reply[0] == Reply.GONE:
                raise RunNotFound(parent_run_id)
            if reply[0] == Reply.NOT_ENDED:
                raise TransitionRefused(f"run {parent_run_id} has not ended: wait for it, or cancel it first")
            check_written(reply, run_id)
            self._plan_numbers.pop((partition, plan.version), None)

    async def copy_entire_run(self, workflow_slug: str, source_run_id: str, target_run_id: str) -> int:
        """Copy all events of a run into a new one; times are kept, ids are new.

        Returns:
            How many events were copied.

        Raises:
            RunNotFound: there is no source.
            RunExists: the target is in use.
        """
        _check_copy(workflow_slug, source_run_id, target_run_id)
        if (await self.status_of([target_run_id]))[0]:
            raise RunExists(target_run_id)
        return await self._copy(source_run_id, target_run_id, lambda wire: True)

    async def copy_workflow_events(
        self, workflow_slug: str, source_run_id: str, target_run_id: str, *, exclude_terminal: bool = False
    ) -> int:
        """Copy the events of the run itself, with or without its ends; as `copy_entire_run`."""
        _check_copy(workflow_slug, source_run_id, target_run_id)
        check_flag("exclude_terminal", exclude_terminal)
        return await self._copy(
            source_run_id, target_run_id,
            lambda wire: wire["category"] == "workflow" and not (exclude_terminal and wire["type"] in TERMINAL),
        )  # fmt: skip

    async def copy_step_events(
        self, workflow_slug: str, source_run_id: str, target_run_id: str, include_step_ids: Iterable[str]
    ) -> int:
        """Copy the events of some steps; as `copy_entire_run`."""
        _check_copy(workflow_slug, source_run_id, target_run_id)
        wanted = set(check_steps("include_step_ids", include_step_ids))
        return await self._copy(source_run_id, target_run_id, lambda wire: wire.get("stepId") in wanted)

    async def delete_step_events(self, workflow_slug: str, run_id: str, step_ids: Iterable[str]) -> int:
        """Delete all events of some steps; every derived key is folded anew. Returns how many were deleted.

        Raises:
            RunNotFound: there is no such run.
        """
        k.check_slug(workflow_slug)
        return await self._erase(run_id, "steps", list(check_steps("step_ids", step_ids)))

    async def delete_workflow_terminal_events(self, workflow_slug: str, run_id: str) -> int:
        """Delete WorkflowCompleted, WorkflowFailed and WorkflowCancelled; as `delete_step_events`."""
        k.check_slug(workflow_slug)
        return await self._erase(run_id, "terminal", [])

    async def _erase(self, run_id: str, what: str, steps: list[str]) -> int:
        reply = await self.call("erase", self.partition(k.check_run_id(run_id)), steps, run_id=run_id, what=what)
        if reply[0] == Reply.GONE:
            raise RunNotFound(run_id)
        check_written(reply, run_id)
        return int(reply[1])

    async def _copy(self, source: str, target: str, wanted: Any) -> int:
        context = await self.run_context(source)
        if context is None:
            raise RunNotFound(source)
        slug, version_of = context
        home, away = self.partition(source), self.partition(target)
        rest: list[Any] = []
        async for stream_id, entry in self.read_stream(source):
            wire = decode_event(stream_id.decode(), entry, slug, source, version_of)
            if wanted(wire):
                fields = await self._moved(unpack(entry[b"data"]), home, away)
                if wire["type"] == "StepScheduled" and "sv" not in fields:
                    fields.setdefault("dl", 0)  # left out where the engine writes it, and then not a save's
                fields["ts"], fields["sv"] = wire["timestampUs"], 1
                rest += (target, entry[b"type"], entry[b"step"], pack(fields), entry[b"payload"], "")
        if not rest:
            return 0
        reply = await self.call("append", away, rest)
        if reply[0] == Reply.GONE:
            raise RunNotFound(target)
        check_written(reply, target)
        return len(reply[1])

    async def _moved(self, fields: dict[str, Any], home: int, away: int) -> dict[str, Any]:
        """An envelope for another run: it owns no idempotency key, goes on by nothing, and its plan is numbered as over there."""
        for own in ("ik", "ih", "ix", "go"):
            fields.pop(own, None)
        if "pl" in fields and home != away:
            fields["pl"] = await self.plan_number(await self.stored_plan(home, fields["pl"]), away)
        return fields


def dependents_of(plan: Plan, step_id: str) -> list[str]:
    """A step and all that depends on it, directly or not, in declaration order.

    Raises:
        StepNotFound: the plan has no such step.
    """
    if step_id not in plan.dependents:
        raise StepNotFound(step_id, f"the current version of workflow {plan.slug!r}")
    found = {step_id}
    for step in plan.steps:
        if any(edge.step in found for edge in step.dependencies):
            found.add(step.id)
    return [step.id for step in plan.steps if step.id in found]


def _check_copy(workflow_slug: str, source_run_id: str, target_run_id: str) -> None:
    k.check_slug(workflow_slug)
    k.check_run_id(source_run_id, "source_run_id")
    k.check_run_id(target_run_id, "target_run_id")


def _carried(submitted: Mapping[str, Any]) -> dict[str, Any]:
    """What a rerun takes over from its parent's submission, by envelope codes."""
    names = {"priority": "p", "tags": "tg", "metadata": "md", "timeoutUs": "tm"}
    return {code: submitted[name] for name, code in names.items() if submitted.get(name)}
