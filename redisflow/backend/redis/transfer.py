"""Runs out of a namespace and into one, as the wire form of their events.

An export is the history and nothing else, so it fits any namespace, any number of partitions and other tools that speak this form.
An import checks every event of every run before the first is written, then writes each run by one atomic `append`. What it cannot
bring along is the plan: an imported run has none, so its history is whole, but nothing says what would come next in it: what it
had scheduled is handed back by every worker until it fails as `step-removed`. Its idempotency key stays visible, yet
reserves nothing, since the key may be in use here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pydantic_core

from redisflow.backend import keys as k
from redisflow.backend.redis.events import Events
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.replies import Reply
from redisflow.backend.types import Submission
from redisflow.codec import encode_event
from redisflow.model.errors import InvalidInput, RedisflowError, RunExists, RunNotFound
from redisflow.model.events import parse_event

PAGE = 500
"""Runs looked at in one round trip."""
FIRST: Final = frozenset({"RunSubmitted", "WorkflowStarted"})
"""What a history can begin with: only these name the workflow."""
_PAYLOADS: Final = ("input", "output", "data")
_LARGEST: Final = {"timestampUs": 2**53, "availableAtUs": 2**53, "attemptNumber": 2**24, "workflowAttemptNumber": 2**16}
"""Bounds of what the run's packed fields and the scores of sorted sets hold; the wire form has wider ones."""
_RELATIVES: Final = ("parentRunId", "originalRunId")


@dataclass(frozen=True)
class ImportReport:
    """What an import wrote.

    Attributes:
        runs: the ids, in the order of the input.
        events: how many, of all runs.
        live: runs among them that had not ended, and have no plan to go on by.
        renamed: old id to new one; empty where ids were kept.
    """

    runs: tuple[str, ...]
    events: int
    live: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)


async def export_runs(
    backend: Events, run_ids: Sequence[str] = (), *, workflow_slug: str | None = None, statuses: Collection[str] = (),
) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
    """The wire form of the events of runs, one run after the other, each in the order it was written.

    Args:
        backend: opened.
        run_ids: these, in this order; none: all runs, oldest first. One that is deleted meanwhile is left out.
        workflow_slug: only runs of this workflow.
        statuses: only runs in one of these.

    Raises:
        InvalidArgument: an id or the slug cannot be one.
        RunNotFound: there is no run of a given id; nothing was yielded.
    """
    if workflow_slug is not None:
        k.check_slug(workflow_slug)
    given = list(dict.fromkeys(k.check_run_id(run_id) for run_id in run_ids))
    chosen: list[tuple[int, str]] = []
    async for page in _pages(given) if given else _all_ids(backend):
        for run_id, state in zip(page, await backend.get_runs(page), strict=True):
            if state is None and given:
                raise RunNotFound(run_id)
            if state is None or workflow_slug not in (None, state.workflow_slug):
                continue
            if not statuses or state.status in statuses:
                chosen.append((state.created_at, run_id))
    for _, run_id in chosen if given else sorted(chosen):
        for wire in await backend.load_wire_events(run_id):
            yield parse_event(wire).to_wire()


async def _pages(run_ids: Sequence[str]) -> AsyncIterator[list[str]]:
    for first in range(0, len(run_ids), PAGE):
        yield list(run_ids[first : first + PAGE])


async def _all_ids(backend: Events) -> AsyncIterator[list[str]]:
    """Ids of all runs, in pages. By SCAN: the indexes go by workflow, and an imported run's need not be registered."""
    seen: set[str] = set()
    for keys in backend.partitions:
        prefix = f"{keys.prefix}run:"
        page: list[str] = []
        async for key in backend.client.scan_iter(match=f"{prefix}*", count=PAGE, _type="HASH"):
            run_id = key.decode().removeprefix(prefix)
            if run_id not in seen:
                seen.add(run_id)
                page.append(run_id)
            if len(page) == PAGE:
                yield page
                page = []
        if page:
            yield page


async def import_runs(backend: Events, lines: Iterable[str | bytes], rename: bool = False) -> ImportReport:
    """Write runs from lines of JSON, an event each, as `export_runs` gives them; lines of a run may lie apart.

    Event ids are given anew, times are kept.

    Args:
        backend: opened.
        lines: JSON objects; blank lines are passed by.
        rename: give every run a new id, and put it where the runs refer to each other.

    Raises:
        InvalidInput: a line is no event, or does not fit the others of its run; it is named, and nothing was written.
        RunExists: a run id is in use; nothing was written.
    """
    histories = read_histories(lines)
    renamed = {run_id: k.new_run_id() for run_id in histories} if rename else {}
    targets = [renamed.get(run_id, run_id) for run_id in histories]
    async for page in _pages(targets):
        for run_id, state in zip(page, await backend.get_runs(page), strict=True):
            if state is not None:
                raise RunExists(run_id)
    for target, history in zip(targets, histories.values(), strict=True):
        await _append(backend, target, history, renamed)
    live = [
        run_id
        async for page in _pages(targets)
        for run_id, state in zip(page, await backend.get_runs(page), strict=True)
        if state is not None and state.status in LIVE
    ]
    return ImportReport(tuple(targets), sum(map(len, histories.values())), tuple(live), renamed)


async def _append(
    backend: Events, run_id: str, history: Sequence[Mapping[str, Any]], renamed: Mapping[str, str]
) -> None:
    rest: list[Any] = []
    for wire in history:
        moved = {name: renamed.get(wire[name], wire[name]) for name in _RELATIVES if name in wire}
        slug = wire["workflowSlug"] if wire["type"] in FIRST else None
        rest += (run_id, *encode_event({**wire, **moved}, ts=wire["timestampUs"], sv=1, wf=slug), "")
    reply = await backend.call("append", backend.partition(run_id), rest)
    if reply[0] != Reply.OK:
        raise RedisflowError(f"run {run_id} could not be imported: {reply[1].decode()}")


def read_histories(lines: Iterable[str | bytes]) -> dict[str, list[dict[str, Any]]]:
    """Checked events in wire form by run, runs and events in the order of the lines.

    Raises:
        InvalidInput: names the line and what is wrong with it.
    """
    histories: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            wire = _read(line)
            _check(wire)
            history = histories.setdefault(wire["runId"], [])
            _check_place(wire, history)
        except InvalidInput as error:
            raise InvalidInput(f"line {number}", error.problems) from None
        except (RedisflowError, ValueError, TypeError, OverflowError, RecursionError) as error:
            text = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InvalidInput(f"line {number}", [("$", text)]) from None
        history.append(wire)
    return histories


def _read(line: str | bytes) -> dict[str, Any]:
    text = line.decode() if isinstance(line, bytes) else line
    data = json.loads(text, parse_constant=_no_number)
    if not isinstance(data, dict):
        raise InvalidInput("line", [("$", "is no JSON object")])
    return parse_event(data).to_wire()


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def _check(wire: Mapping[str, Any]) -> None:
    """Refuse what the wire form allows and the keys cannot hold.

    Raises:
        RedisflowError, ValueError: what is wrong, in words.
    """
    k.check_run_id(wire["runId"])
    k.check_slug(wire["workflowSlug"])
    if (wire["category"] == "step") != ("stepId" in wire):
        raise InvalidInput("event", [("stepId", "belongs to events of category step, and to each of them")])
    if "stepId" in wire:
        k.check_step_id(wire["stepId"])
    for name, bound in _LARGEST.items():
        if not 0 <= wire.get(name, 0) < bound:
            raise InvalidInput("event", [(name, f"is not from 0 to {bound - 1}")])
    for name in _PAYLOADS:
        if isinstance(wire.get(name), str):
            _check_payload(name, wire[name])
    if wire["type"] == "RunSubmitted":
        Submission(
            priority=wire["priority"], available_at_us=wire["availableAtUs"], timeout_us=wire.get("timeoutUs"),
            tags=wire.get("tags", ()),
        ).check()  # fmt: skip
    encode_event(wire)


def _check_payload(name: str, text: str) -> None:
    try:
        pydantic_core.from_json(text.encode())
    except ValueError as error:
        raise InvalidInput("event", [(name, f"is not JSON text, {error}")]) from None


def _check_place(wire: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an event that cannot follow the events of its run before it."""
    if not history:
        if wire["type"] not in FIRST:
            raise InvalidInput(
                "event", [("type", f"run {wire['runId']!r} must begin with {' or '.join(sorted(FIRST))}")]
            )
    elif history[0]["workflowSlug"] != wire["workflowSlug"]:
        raise InvalidInput(
            "event", [("workflowSlug", f"run {wire['runId']!r} began in {history[0]['workflowSlug']!r}")]
        )
