"""Server-Sent Events: how messages look on the wire, and a response that ends with its server."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from redisflow.backend.entries import order
from redisflow.model.errors import InvalidArgument, RedisflowError

log = logging.getLogger("redisflow.web")
PING = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""


def message(data: str, *, event: str | None = None, id: str | None = None) -> str:
    """One message; data of several lines is sent as such."""
    head = (f"id: {id}\n" if id else "") + (f"event: {event}\n" if event else "")
    return head + "".join(f"data: {line}\n" for line in data.replace("\r", "").split("\n")) + "\n"


def json_message(value: Any, *, event: str | None = None, id: str | None = None) -> str:
    """One message with JSON."""
    return message(json.dumps(value, ensure_ascii=False, separators=(",", ":")), event=event, id=id)


def last_event_id(request: Request) -> str:
    """The stream id that a browser has seen last: the header of a reconnect, else `?after=`, else the beginning.

    Raises:
        InvalidArgument: it is no stream id.
    """
    given = request.headers.get("last-event-id") or request.query_params.get("after") or "0-0"
    first, dash, second = given.partition("-")
    if not first.isdecimal() or not first.isascii() or (dash and not (second.isdecimal() and second.isascii())):
        raise InvalidArgument("Last-Event-ID", given, "a stream id such as 1790000000000000-0")
    if max(order(given)) >= 2**63:
        raise InvalidArgument("Last-Event-ID", given, "a stream id below 2**63")
    return given if dash else f"{given}-0"


def event_stream(messages: AsyncIterator[str]) -> StreamingResponse:
    """A response of messages, with a comment where nothing is said for long."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_with_pings(messages), media_type="text/event-stream", headers=headers)


async def _with_pings(messages: AsyncIterator[str]) -> AsyncIterator[str]:
    yield "retry: 1000\n\n"
    following: asyncio.Task[str] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(_next(messages))
            done, _ = await asyncio.wait({following}, timeout=PING)
            if not done:
                yield ": ping\n\n"
                continue
            try:
                text = following.result()
            except _Ended:
                return
            following = None
            yield text
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        if hasattr(messages, "aclose"):
            await messages.aclose()


async def _next(messages: AsyncIterator[str]) -> str:
    try:
        return await anext(messages)
    except StopAsyncIteration:
        raise _Ended from None


async def merged(*sources: AsyncIterator[str]) -> AsyncIterator[str]:
    """Messages of several sources as they come; ends with the first source that does."""
    queue: asyncio.Queue[str | None] = asyncio.Queue(100)

    async def drain(source: AsyncIterator[str]) -> None:
        try:
            async with aclosing(source) as messages:  # type: ignore[type-var]
                async for text in messages:
                    await queue.put(text)
        except RedisflowError as error:  # the run is gone: the others end with it
            log.debug("a live stream ended: %s", error)
        except Exception:  # the viewer comes back with its last id, where a stream of half the sources would look alive
            log.exception("a live stream failed")
        await queue.put(None)

    tasks = [asyncio.create_task(drain(source)) for source in sources]
    try:
        while (text := await queue.get()) is not None:
            yield text
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Ended(Exception):
    """Nothing follows; a StopAsyncIteration cannot leave a task."""
