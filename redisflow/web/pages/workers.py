"""Workers: their slots, how long ago each was heard of, and the steps that they run now."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.redis import inspect
from redisflow.backend.redis.glance import running_steps
from redisflow.web.desk import Desk, desk_of
from redisflow.web.pages.overview import live_part
from redisflow.web.render import part, respond

GONE_US = 600_000_000
"""A worker not heard of for longer is left out."""


async def workers(request: Request) -> Response:
    """The page."""
    return respond(request, "workers.html", active="workers", **await _work(desk_of(request)))


async def workers_live(request: Request) -> Response:
    """Its tables, kept live."""
    desk = desk_of(request)

    async def render() -> str:
        return part(request, "workers_live.html", **await _work(desk))

    return live_part(desk, "workers", render)


async def _work(desk: Desk) -> dict[str, Any]:
    found = await inspect.workers(desk.backend, GONE_US)
    found.sort(
        key=lambda worker: (worker.get("seenAgoUs", 0) > desk.backend.settings.stale_after, str(worker.get("id", "")))
    )
    steps, running = await running_steps(desk.backend)
    return {
        "workers": found, "steps": steps, "running": running, "now": await desk.backend.now(),
        "stale_after": desk.backend.settings.stale_after,
    }  # fmt: skip
