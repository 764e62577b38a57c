"""The list of runs: filters and pages from indexes, and what can be done with a selection."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend import keys as k
from redisflow.backend.redis.glance import status_counts
from redisflow.model.errors import InvalidArgument
from redisflow.model.states import RunState
from redisflow.web.desk import desk_of
from redisflow.web.pages.overview import live_part
from redisflow.web.render import WINDOWS, part, respond

PAGE = 50
STATUSES = ("pending", "running", "completed", "failed", "cancelled")
LOOKED_AT = 2_000
"""Newest runs among which a prefix, or a time beside tags, is looked for; the page says where that was not all."""


async def runs(request: Request) -> Response:
    """The page."""
    found = await _found(request)
    return respond(request, "runs.html", active="runs", statuses=STATUSES, slugs=await _slugs(request), **found)


async def runs_live(request: Request) -> Response:
    """Its table, kept live; ticked rows stay ticked in the browser."""
    desk = desk_of(request)

    async def render() -> str:
        return part(request, "runs_live.html", **await _found(request))

    return live_part(desk, f"runs {request.url.query}", render)


async def _slugs(request: Request) -> list[str]:
    return await desk_of(request).backend.workflow_slugs()


async def _found(request: Request) -> dict[str, Any]:
    """What the filters ask for, as templates show it."""
    given = request.query_params
    wanted = {
        "workflow": given.get("workflow", ""), "status": [s for s in given.getlist("status") if s in STATUSES],
        "tag": given.get("tag", "").replace(",", " ").strip(), "id": given.get("id", "").strip(),
        "since": given.get("since", ""),
    }  # fmt: skip
    number = int(given["page"]) if given.get("page", "").isdecimal() and len(given["page"]) < 8 else 1
    number = max(1, number)
    listed, total, looked = await _listed(request, wanted, (number - 1) * PAGE)
    return {
        "runs": listed, "total": total, "looked_at": looked, "filters": wanted, "number": number,
        "last": max(1, -(-total // PAGE)), "now": await desk_of(request).backend.now(), "can_pick": True,
    }  # fmt: skip


async def _listed(request: Request, wanted: dict[str, Any], offset: int) -> tuple[list[RunState], int, int | None]:
    """A page of runs, how many there are, and among how many of the newest was looked where not among all."""
    backend = desk_of(request).backend
    slug, tags = wanted["workflow"] or None, wanted["tag"].split()
    since = await _since(request, wanted["since"])
    if not wanted["id"] and since is None:
        listed, total = await backend.list_runs(slug, wanted["status"], tags, PAGE, offset)
        return listed, total, None
    exact = await backend.get_run(wanted["id"]) if wanted["id"] and _is_run_id(wanted["id"]) else None
    if exact is not None:
        return [exact], 1, None
    if not wanted["id"] and not tags:
        counts = await status_counts(backend, since or 0, [slug] if slug else None)
        count = sum(counts[status] for status in wanted["status"] or STATUSES)
        listed, _ = await backend.list_runs(slug, wanted["status"], (), max(0, min(PAGE, count - offset)), offset)
        return listed, count, None
    ids, total = await backend.newest_ids(slug, wanted["status"], tags, LOOKED_AT, 0)
    matching = [run_id for run_id in ids if run_id.startswith(wanted["id"])]
    count = len(matching) if since is None else await _count_since(request, matching, since)
    page = await backend.get_runs(matching[offset : min(count, offset + PAGE)])
    return [run for run in page if run is not None], count, LOOKED_AT if total > LOOKED_AT else None


async def _count_since(request: Request, ids: list[str], since: int) -> int:
    """How many of the ids, newest first, were created since a time: found by halving."""
    backend, low, high = desk_of(request).backend, 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        run = await backend.get_run(ids[middle])
        if run is not None and run.created_at >= since:
            low = middle + 1
        else:
            high = middle
    return low


async def _since(request: Request, given: str) -> int | None:
    return await desk_of(request).backend.now() - WINDOWS[given] * 1_000_000 if given in WINDOWS else None


def _is_run_id(text: str) -> bool:
    try:
        return bool(k.check_run_id(text))
    except InvalidArgument:
        return False
