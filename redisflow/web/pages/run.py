"""One run: its graph, timeline, steps, logs and events; live, or as it was at an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from redisflow.backend.redis.glance import last_stream_id
from redisflow.backend.redis.inspect import plan_of_run
from redisflow.model.errors import InvalidArgument, RunNotFound
from redisflow.web.desk import Desk, Refusal, desk_of
from redisflow.web.render import clock, iso, part, respond, short
from redisflow.web.runview import RunView, events_of, logs_of, told, view_run
from redisflow.web.sse import event_stream, json_message, last_event_id, merged, message

MOST_INPUT = 100_000
"""Characters of an input that can be edited on the page."""


async def run(request: Request) -> Response:
    """The page."""
    run_id, at, desk = request.path_params["run_id"], _at(request), desk_of(request)
    cursor = await last_stream_id(desk.backend, run_id)  # before the events, so that the tail leaves none out
    wires, view = await _view(desk, run_id, at)
    logs, older_logs = logs_of(wires, at)
    events, older_events = events_of(wires)
    text = view.run.input or ""
    return respond(
        request, "run.html", active="runs", view=view, logs=logs, older_logs=older_logs, events=events,
        older_events=older_events, told=told, cursor=cursor, editable=len(text) <= MOST_INPUT,
        from_step=request.query_params.get("from", ""), log_steps=sorted({wire["stepId"] for wire in logs}),
    )  # fmt: skip


def _at(request: Request) -> str | None:
    given = request.query_params.get("at")
    if given is not None and not (given.isascii() and given.isdecimal() and len(given) < 20):
        raise InvalidArgument("at", given, "the id of an event, all digits")
    return given


async def _view(desk: Desk, run_id: str, at: str | None) -> tuple[Sequence[Mapping[str, Any]], RunView]:
    """All events of a run, and what the page shows of them.

    Raises:
        RunNotFound: there is no such run.
        Refusal: there was no run yet at that event.
    """
    wires = await desk.backend.load_wire_events(run_id)
    if not wires:
        raise RunNotFound(run_id)
    plan = await plan_of_run(desk.backend, run_id)
    known = await desk.backend.get_run(run_id)
    view = view_run(wires, plan.steps if plan else {}, now=await desk.backend.now(), at=at, known=known)
    if view is None:
        raise Refusal(404, f"The run has no event up to {at}: its first is {wires[0]['eventId']}.")
    return wires, view


async def run_live(request: Request) -> Response:
    """The tail: every event once, with its stream id, and the graph and timeline whenever they have changed."""
    run_id, desk = request.path_params["run_id"], desk_of(request)
    after = last_event_id(request)
    if await desk.backend.run_context(run_id) is None:
        raise RunNotFound(run_id)
    return event_stream(merged(_events(desk, run_id, after), _parts(request, desk, run_id)))


async def _events(desk: Desk, run_id: str, after: str) -> AsyncIterator[str]:
    async for stream_id, wire in desk.hub.tail(run_id, after):
        yield json_message(_line(wire), event="log" if wire["type"] == "LogEntry" else "event", id=stream_id)


def _line(wire: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of an event, as text."""
    line = {"id": wire["eventId"], "time": clock(wire["timestampUs"]), "iso": iso(wire["timestampUs"]),
            "type": wire["type"], "step": wire.get("stepId", "")}  # fmt: skip
    if wire["type"] == "LogEntry":
        return {
            **line,
            "stream": wire["stream"],
            "attempt": wire["attemptNumber"],
            "text": short(wire["message"], 2_000),
        }
    return {**line, "text": short(told(wire), 300)}


async def _parts(request: Request, desk: Desk, run_id: str) -> AsyncIterator[str]:
    async with desk.hub.feed(run_id) as (feed, _):

        async def render() -> str:
            _, view = await _view(desk, run_id, None)
            return part(request, "run_live.html", view=view)

        async def pause() -> None:
            with contextlib.suppress(TimeoutError):
                # not wait_for, which on 3.11 loses a cancellation that comes as the wait ends
                async with asyncio.timeout(desk.options.refresh):
                    await feed.changed.wait()
            await asyncio.sleep(desk.options.poll)

        async for html in desk.boards.watch(f"run {run_id}", render, pause):
            yield message(html, event="part")


async def download_events(request: Request) -> Response:
    """All events as JSON lines, as `redisflow export` writes them."""
    run_id = request.path_params["run_id"]
    wires = await desk_of(request).backend.load_wire_events(run_id)
    if not wires:
        raise RunNotFound(run_id)
    lines = (json.dumps(wire, ensure_ascii=False) + "\n" for wire in wires)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=_attachment(f"{run_id}.jsonl"))


async def download_payload(request: Request) -> Response:
    """The whole input, or the output of the run or of `?step=`, as it is stored."""
    run_id, what = request.path_params["run_id"], request.path_params["what"]
    _, view = await _view(desk_of(request), run_id, _at(request))
    step = request.query_params.get("step")
    if what == "input":
        text = view.run.input
    elif what == "output" and step is not None:
        text = next((s.state.output for s in view.steps if s.id == step and s.state is not None), None)
    else:
        text = view.output if what == "output" else None
    if text is None:
        raise Refusal(404, "There is no such payload.")
    return PlainTextResponse(text, media_type="application/json", headers=_attachment(f"{run_id}-{what}.json"))


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}
