"""Queues: what is due, delayed and running at each level, how old the oldest due step is, and who waits for work."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.redis import inspect
from redisflow.web.desk import Desk, desk_of
from redisflow.web.pages.overview import live_part
from redisflow.web.render import part, respond


async def queues(request: Request) -> Response:
    """The page."""
    return respond(request, "queues.html", active="queues", **await _depths(desk_of(request)))


async def queues_live(request: Request) -> Response:
    """Its tables, kept live."""
    desk = desk_of(request)

    async def render() -> str:
        return part(request, "queues_live.html", **await _depths(desk))

    return live_part(desk, "queues", render)


async def _depths(desk: Desk) -> dict[str, Any]:
    depths = await inspect.queue_depths(desk.backend)
    most = max((depth.due + depth.delayed + depth.running for depth in depths), default=0)
    return {"depths": depths, "most": most}
