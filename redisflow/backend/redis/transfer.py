"""Runs out of a namespace and into one, as the wire form of their events.

An export is the history, and beside the first submission of each version its plan, so it fits any namespace, any number of
partitions and other tools that speak this form. An import checks every event of every run before the first is written, then writes
each run by one atomic `append`.

Where its plan is at hand, from the export or from this namespace, an imported run that had not ended goes on as it stood: what was
scheduled can be claimed at its time, and what was running counts as claimed at the time of the import by a worker that sends no
heartbeat, so that the reclaimer takes it back once the stale threshold has passed, out of its budget of crashes. Where there is no
plan, nothing says what would come next: such a run is history only. An imported idempotency key stays visible, yet reserves
nothing, since the key may be in use here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.redis.events import Events
from redisflow.backend.redis.lines import FIRST, Histories, Wire, read_histories, submission_of
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.replies import Reply
from redisflow.codec import encode_event
from redisflow.model.errors import RedisflowError, RunExists, RunNotFound
from redisflow.model.events import parse_event
from redisflow.model.workflow import Plan

PAGE = 500
"""Runs looked at in one round trip."""
_RELATIVES = ("parentRunId", "originalRunId")


@dataclass(frozen=True)
class ImportReport:
    """What an import wrote.

    Attributes:
        runs: the ids, in the order of the input.
        events: how many, of all runs.
        live: runs among them that had not ended.
        history_only: those of `live` that have no plan to go on by.
        renamed: old id to new one; empty where ids were kept.
    """

    runs: tuple[str, ...]
    events: int
    live: tuple[str, ...]
    history_only: tuple[str, ...]
    renamed: Mapping[str, str] = field(default_factory=dict)


async def export_runs(
    backend: Events, run_ids: Sequence[str] = (), *, workflow_slug: str | None = None, statuses: Collection[str] = (),
) -> AsyncIterator[dict[str, Any]]:  # fmt: skip
    """The wire form of the events of runs, one run after the other, each in the order it was written.

    The first RunSubmitted of each version has the version's plan in a field `plan`, where this namespace has it.

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
    told: set[str] = set()
    for _, run_id in chosen if given else sorted(chosen):
        for stored in await backend.load_wire_events(run_id):
            wire = parse_event(stored).to_wire()
            if wire["type"] == "RunSubmitted" and wire["versionId"] not in told:
                told.add(wire["versionId"])
                plan = await backend.plan_of_version(wire["workflowSlug"], wire["versionId"])
                if plan is not None:
                    wire["plan"] = plan.model_dump(mode="json")
            yield wire


async def _pages(run_ids: Sequence[str]) -> AsyncIterator[list[str]]:
    for first in range(0, len(run_ids), PAGE):
        yield list(run_ids[first : first + PAGE])


async def _all_ids(backend: Events) -> AsyncIterator[list[str]]:
    """Ids of all runs, in pages. By SCAN: the indexes go by workflow, and an imported run's need not be registered."""
    seen: set[str] = set()
    for keys in backend.partitions:
        prefix = f"{keys.prefix}run:"
        page: list[str] = []
        async for key in backend.scan_keys(prefix, kind="hash"):
            run_id = key.removeprefix(prefix)
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
    read = read_histories(lines, limit=backend.settings.max_payload_bytes)
    renamed = {run_id: k.new_run_id() for run_id in read.runs} if rename else {}
    targets = [renamed.get(run_id, run_id) for run_id in read.runs]
    async for page in _pages(targets):
        for run_id, state in zip(page, await backend.get_runs(page), strict=True):
            if state is not None:
                raise RunExists(run_id)
    plans = await _plans_of(backend, read)
    await backend.note_slugs({history[0]["workflowSlug"] for history in read.runs.values()})
    planless: set[str] = set()
    for target, history in zip(targets, read.runs.values(), strict=True):
        plan = plans.get(_version_of(history))
        if plan is None:
            planless.add(target)
        await _append(backend, target, history, renamed, plan)
    live = [
        run_id
        async for page in _pages(targets)
        for run_id, state in zip(page, await backend.get_runs(page), strict=True)
        if state is not None and state.status in LIVE
    ]
    return ImportReport(
        tuple(targets), sum(map(len, read.runs.values())), tuple(live),
        tuple(run_id for run_id in live if run_id in planless), renamed,
    )  # fmt: skip


def _version_of(history: Sequence[Wire]) -> tuple[str, str]:
    """Slug and version that a run was submitted with; no version where its submission is missing."""
    submitted = submission_of(history)
    return history[0]["workflowSlug"], submitted["versionId"] if submitted else ""


async def _plans_of(backend: Events, read: Histories) -> dict[tuple[str, str], Plan]:
    """Plans by slug and version, from the lines or else from this namespace."""
    plans: dict[tuple[str, str], Plan] = {}
    for slug, version in {_version_of(history) for history in read.runs.values()}:
        plan = read.plans.get(version) or await backend.plan_of_version(slug, version)
        if plan is not None and plan.slug == slug:
            plans[slug, version] = plan
    return plans


async def _append(
    backend: Events, run_id: str, history: Sequence[Wire], renamed: Mapping[str, str], plan: Plan | None
) -> None:
    partition = backend.partition(run_id)
    number = await backend.plan_number(plan, partition) if plan else None
    rest: list[Any] = []
    for wire in history:
        moved = {name: renamed.get(wire[name], wire[name]) for name in _RELATIVES if name in wire}
        own: dict[str, Any] = {"ts": wire["timestampUs"], "sv": 1}
        if number is None and wire["type"] in FIRST:
            own["wf"] = wire["workflowSlug"]
        elif wire["type"] == "RunSubmitted":
            own |= {"pl": number, "go": True}
        rest += (run_id, *encode_event({**wire, **moved}, **own), "")
    reply = await backend.call("append", partition, rest)
    if reply[0] != Reply.OK:
        raise RedisflowError(f"run {run_id} could not be imported: {reply[1].decode()}")
