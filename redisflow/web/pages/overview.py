"""The overview: what the namespace does now and did in a window of time.

Counts are exact, from indexes. Durations come from the counters of each minute, which reach back six hours at the most, and the
page says how far: folding every event of a hundred thousand runs is what `redisflow stats` and the API are for.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.redis import inspect
from redisflow.backend.redis.glance import ends_by_time, latest_failures, status_counts
from redisflow.backend.redis.rollups import MOST_MINUTES
from redisflow.web.boards import every
from redisflow.web.charts import bars, edges_of
from redisflow.web.desk import Desk, desk_of
from redisflow.web.render import WINDOWS, part, respond
from redisflow.web.sse import event_stream, message

PARTS = 48
LATEST = 8
QUANTILES = ((0.5, "median"), (0.95, "95 %"), (0.99, "99 %"))
TIMES = {"runUs": "A run, from submission to end", "stepUs": "A step's attempt", "waitUs": "A step's wait for a worker"}


def window_of(request: Request, default: str = "24h") -> str:
    """The window that was asked for, else the default."""
    given = request.query_params.get("window", default)
    return given if given in WINDOWS else default


async def overview(request: Request) -> Response:
    """The page."""
    window = window_of(request, "1h")
    return respond(
        request, "overview.html", active="overview", window=window, content=await _figures(desk_of(request), window)
    )


async def overview_live(request: Request) -> Response:
    """Its figures, kept live."""
    window, desk = window_of(request, "1h"), desk_of(request)

    async def render() -> str:
        return part(request, "overview_live.html", content=await _figures(desk, window), window=window)

    return live_part(desk, f"overview {window}", render)


def live_part(desk: Desk, key: str, render: Any) -> Response:
    """A part of a page as a stream of its versions."""

    async def messages() -> Any:
        async for html in desk.boards.watch(key, render, every(desk.options.refresh)):
            yield message(html, event="part")

    return event_stream(messages())


async def _figures(desk: Desk, window: str) -> dict[str, Any]:
    backend = desk.backend
    now = await backend.now()
    since = now - WINDOWS[window] * 1_000_000
    edges = edges_of(since, now, PARTS)
    ends = await ends_by_time(backend, edges)
    rollups = await backend.get_rollups(min(MOST_MINUTES, WINDOWS[window] // 60))
    spreads = {title: rollups.spreads[name][1] for name, title in TIMES.items()}
    depths = await inspect.queue_depths(backend)
    workers = await inspect.workers(backend, backend.settings.stale_after)
    return {
        "now": now, "since": since, "chart": bars(ends, edges), "ended": sum(ends),
        "per_hour": sum(ends) * 3600 / WINDOWS[window], "statuses": await status_counts(backend, since),
        "quantiles": [name for _, name in QUANTILES], "since_counted": rollups.start_us,
        "times": [(title, spread.count, [spread.percentile(q) for q, _ in QUANTILES]) for title, spread in spreads.items()],
        "due": sum(depth.due for depth in depths), "delayed": sum(depth.delayed for depth in depths),
        "running": sum(depth.running for depth in depths), "oldest": max((depth.oldest_us or 0 for depth in depths), default=0),
        "workers": workers, "slots": sum(int(worker.get("concurrency") or 0) for worker in workers),
        "failures": await latest_failures(backend, LATEST),
    }  # fmt: skip
