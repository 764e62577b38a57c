"""The event log: reading a run's stream, whole or live, and the states that follow from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.checks import check_words
from redisflow.backend.entries import before, order
from redisflow.backend.redis.header import parse_header
from redisflow.backend.redis.runs import Runs
from redisflow.codec import compose_output, decode_event, decode_events
from redisflow.model.errors import InvalidArgument, RunNotFound
from redisflow.model.events import AnyEvent, parse_event
from redisflow.model.projections import project_step_state
from redisflow.model.states import StepState

PAGE = 1000
TERMINAL = frozenset({"WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled"})


class Events(Runs):
    """Reads over streams."""

    async def read_stream(self, run_id: str) -> AsyncIterator[tuple[bytes, dict[bytes, bytes]]]:
        """Events of a run's stream, page by page."""
        key, low = self.keys_of(k.check_run_id(run_id)).events(run_id), "-"
        while True:
            page = await self.server.retry(partial(self.client.xrange, key, min=low, count=PAGE))
            for entry in page:
                yield entry
            if len(page) < PAGE:
                return
            low = "(" + page[-1][0].decode()

    async def run_context(self, run_id: str) -> tuple[str, Callable[[int], str]] | None:
        """Slug of a run's workflow and its versions by plan number; None where there is no such run."""
        keys = self.keys_of(k.check_run_id(run_id))
        header, slug = await self.server.retry(lambda: self.client.hmget(keys.run(run_id), "h", "w"))
        if header is None:
            return None
        number = parse_header(header).plan
        info = await self.plan_info(self.partition(run_id), number) if number else None
        name = info.slug if info else (slug or b"-").decode()
        version = info.version if info else "unknown"
        return name, lambda _: version

    async def load_wire_events(self, run_id: str) -> list[dict[str, Any]]:
        """All events of a run in wire form, in the order of the stream; [] where there is no such run."""
        context = await self.run_context(run_id)
        if context is None:
            return []
        entries = [entry async for entry in self.read_stream(run_id)]
        return list(decode_events(entries, context[0], run_id, context[1]))

    async def load_events(
        self, workflow_slug: str, run_id: str, category: str | None = None, step_id: str | None = None,
        types: Iterable[str] | None = None,
    ) -> list[AnyEvent]:  # fmt: skip
        """Events of a run by time, then id.

        Args:
            workflow_slug: the run's workflow.
            run_id: the run.
            category: `step` or `workflow`; None for both.
            step_id: narrows step events to one step.
            types: narrows to these event types.

        Raises:
            InvalidArgument: `category` is unknown, or `step_id` comes with category `workflow`.
        """
        k.check_slug(workflow_slug)
        if step_id is not None:
            k.check_step_id(step_id)
        if category not in (None, "step", "workflow"):
            raise InvalidArgument("category", category, "step, workflow or None")
        if step_id is not None and category == "workflow":
            raise InvalidArgument("step_id", step_id, "None with category workflow, whose events have no step")
        wanted = set(check_words("types", types)) if types is not None else None
        found = []
        for wire in await self.load_wire_events(run_id):
            if category and wire["category"] != category:
                continue
            if step_id is not None and wire["category"] == "step" and wire["stepId"] != step_id:
                continue
            if wanted is not None and wire["type"] not in wanted:
                continue
            found.append(wire)
        found.sort(key=lambda wire: (wire["timestampUs"], int(wire["eventId"])))
        return [parse_event(wire) for wire in found]

    async def load_step_states(self, run_id: str) -> dict[str, StepState]:
        """State of every step that has events, by step id in order of first appearance."""
        by_step: dict[str, list[AnyEvent]] = {}
        for wire in await self.load_wire_events(run_id):
            if wire["category"] == "step":
                by_step.setdefault(wire["stepId"], []).append(parse_event(wire))
        return {step: project_step_state(events) for step, events in by_step.items()}

    async def exported_outputs(self, run_id: str) -> dict[str, str]:
        """JSON text of the output of each exported step that completed, in order."""
        exported: dict[str, str] = {}
        for wire in await self.load_wire_events(run_id):
            if wire["type"] == "StepCompleted" and wire.get("exportOutput"):
                exported[wire["stepId"]] = wire["output"]
        return exported

    async def follow(self, run_id: str, *, after: str = "0", block_ms: int = 1000) -> AsyncIterator[AnyEvent]:
        """Events of a run from its first (or after a stream id), live, until a terminal event of the run.

        Raises:
            RunNotFound: there is no such run, or it is deleted meanwhile.
        """
        context = await self.run_context(k.check_run_id(run_id))
        if context is None:
            raise RunNotFound(run_id)
        slug, version_of = context
        key = self.keys_of(run_id).events(run_id)
        exported: dict[str, str] = {}
        ended = False
        floor, cursor = order(after), before(after)
        while True:
            reply = await self.server.retry(
                lambda: self.client.xread({key: cursor}, count=PAGE, block=block_ms)  # noqa: B023 - awaited at once
            )
            if not reply:
                # a blocked XREAD never wakes on a deleted stream
                if await self.run_context(run_id) is None:
                    raise RunNotFound(run_id)
                continue
            for stream_id, entry in reply[0][1]:
                cursor = stream_id.decode()
                if order(cursor) <= floor:
                    continue
                wire = decode_event(cursor, entry, slug, run_id, version_of)
                if wire["type"] == "StepCompleted" and wire.get("exportOutput"):
                    exported[wire["stepId"]] = wire["output"]
                elif wire["type"] == "WorkflowCompleted" and not entry[b"payload"]:
                    wire["output"] = compose_output(exported)
                ended = wire["type"] in TERMINAL or (ended and wire["type"] != "WorkflowRetryStarted")
                yield parse_event(wire)
            if ended:
                return
