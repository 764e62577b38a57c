"""Events over HTTP: JSON lines or Server-Sent Events, once or live, going on after the last id that was seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from redisflow.backend.entries import order
from redisflow.backend.redis.events import TERMINAL
from redisflow.backend.redis.glance import last_stream_id
from redisflow.model.errors import RunNotFound
from redisflow.web.desk import Desk
from redisflow.web.hub import Item
from redisflow.web.sse import event_stream, json_message, last_event_id

LIVE = ("pending", "running")


async def follow_events(desk: Desk, request: Request, run_id: str, *, follow: bool) -> Response:
    """Events of a run after `Last-Event-ID`.

    Server-Sent Events always follow; a browser that comes back to an ended run of which it has seen everything gets 204, which
    tells it to stay away.

    Raises:
        RunNotFound: there is no such run.
        InvalidArgument: the id is none.
    """
    after = last_event_id(request)
    run = await desk.backend.get_run(run_id)
    if run is None:
        raise RunNotFound(run_id)
    last = await last_stream_id(desk.backend, run_id)
    wants_sse = "text/event-stream" in request.headers.get("accept", "")
    ended = run.status not in LIVE
    if wants_sse and ended and order(after) >= order(last):
        return Response(status_code=204)
    found = _until_end(desk, run_id, after, last, live=(follow or wants_sse) and not ended)
    if wants_sse:
        return event_stream(_messages(found))
    return StreamingResponse(_lines(found), media_type="application/x-ndjson")


async def _until_end(desk: Desk, run_id: str, after: str, last: str, *, live: bool) -> AsyncIterator[Item]:
    """What the stream holds now; live, also what follows until the run has ended."""
    if not live and order(after) >= order(last):
        return
    async for stream_id, wire in desk.hub.tail(run_id, after):
        yield stream_id, wire
        if live:
            if wire["type"] in TERMINAL and order(stream_id) >= order(last) and await _has_ended(desk, run_id):
                return
        elif order(stream_id) >= order(last):
            return


async def _has_ended(desk: Desk, run_id: str) -> bool:
    run = await desk.backend.get_run(run_id)
    return run is None or run.status not in LIVE


async def _messages(found: AsyncIterator[Item]) -> AsyncIterator[str]:
    async for stream_id, wire in found:
        yield json_message(wire, id=stream_id)


async def _lines(found: AsyncIterator[Item]) -> AsyncIterator[str]:
    async for stream_id, wire in found:
        yield _line(stream_id, wire)


def _line(stream_id: str, wire: Mapping[str, Any]) -> str:
    """An event with its stream id, by which a reader goes on."""
    return json.dumps({"streamId": stream_id, **wire}, ensure_ascii=False, separators=(",", ":")) + "\n"
