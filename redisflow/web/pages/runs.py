"""The list of runs: filters and pages from indexes, and what can be done with a selection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.redis.glance import status_counts
from redisflow.model.states import RunState
from redisflow.web.desk import desk_of
from redisflow.web.pages.overview import live_part
from redisflow.web.render import WINDOWS, part, respond

PAGE = 50
STATUSES = ("pending", "running", "completed", "failed", "cancelled")


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
    listed = await _listed(request, wanted, (number - 1) * PAGE)
    return {
        "filters": wanted, "number": number, "now": await desk_of(request).backend.now(), "can_pick": True,
        "place": {"cursor": given.get("cursor")} if isinstance(listed, Searched) else {"page": number}, "found": listed,
    }  # fmt: skip


@dataclass(frozen=True)
class Numbered:
    """A page among pages that the indexes count."""

    runs: list[RunState]
    total: int

    @property
    def last(self) -> int:
        """Number of the last page."""
        return max(1, -(-self.total // PAGE))


@dataclass(frozen=True)
class Searched:
    """A page of a walk; see `backend.redis.search`."""

    runs: list[RunState]
    looked_at: int
    among: int
    cursor: str | None
    is_first: bool


async def _listed(request: Request, wanted: dict[str, Any], offset: int) -> Numbered | Searched:
    """A page of runs: numbered where indexes count what fits, else looked for from a cursor."""
    backend = desk_of(request).backend
    slug, tags = wanted["workflow"] or None, wanted["tag"].split()
    since = await _since(request, wanted["since"])
    if wanted["id"] or (tags and since is not None):
        cursor = request.query_params.get("cursor")
        found = await backend.search_ids(
            slug, wanted["status"], tags, prefix=wanted["id"], start_us=since, cursor=cursor, limit=PAGE
        )
        page = [run for run in await backend.get_runs(found.ids) if run is not None]
        on = None if found.cursor is None else str(found.cursor)
        return Searched(page, found.looked_at, found.among, on, not cursor)
    if since is None:
        return Numbered(*await backend.list_runs(slug, wanted["status"], tags, PAGE, offset))
    counts = await status_counts(backend, since, [slug] if slug else None)
    count = sum(counts[status] for status in wanted["status"] or STATUSES)
    listed, _ = await backend.list_runs(slug, wanted["status"], (), max(0, min(PAGE, count - offset)), offset)
    return Numbered(listed, count)


async def _since(request: Request, given: str) -> int | None:
    return await desk_of(request).backend.now() - WINDOWS[given] * 1_000_000 if given in WINDOWS else None
