"""What fails: groups of equal errors with their trend, and one group with its occurrences and the button that retries its runs.

A window with very many failures is grouped over the newest of them, and the page says so; `?all=1` takes all.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from redisflow.backend.base import Grouping
from redisflow.backend.redis.glance import newest_failures
from redisflow.model.analytics import ErrorsListCounter, Window
from redisflow.model.events import BaseEvent, StepFailed
from redisflow.model.fingerprints import GROUPINGS, compose
from redisflow.web.charts import bars, edges_of, spread
from redisflow.web.desk import desk_of
from redisflow.web.pages.overview import window_of
from redisflow.web.render import WINDOWS, respond

NEWEST = 200
"""Failures that are grouped unless all are asked for."""
PARTS = 24
PAGE = 50
OCCURRENCES = 100


class _TrendCounter(ErrorsListCounter):
    """Groups with the times of their failures."""

    def __init__(self, grouping: Grouping) -> None:
        super().__init__(grouping)
        self.times: dict[str, list[int]] = {}
        self._by = grouping

    def add(self, event: BaseEvent) -> None:
        super().add(event)
        if isinstance(event, StepFailed):
            self.times.setdefault(compose(event.error_fingerprints, self._by), []).append(event.timestamp_us)


def grouping_of(given: str) -> Grouping:
    """A grouping by its name, else exact."""
    return given if given in GROUPINGS else "exact"


async def errors(request: Request) -> Response:
    """The groups, most failures first."""
    backend, window = desk_of(request).backend, window_of(request)
    grouping = grouping_of(request.query_params.get("grouping", ""))
    slug = request.query_params.get("workflow") or None
    now = await backend.now()
    since = now - WINDOWS[window] * 1_000_000
    first, total = await newest_failures(backend, since, NEWEST)
    start = since if "all" in request.query_params else first
    counter = await backend.fold_failures(_TrendCounter(grouping), Window(start, now, slug))
    edges = edges_of(since, now, PARTS)
    listed = counter.result(PAGE)
    trends = _trends(counter, [group.fingerprint for group in listed.errors], edges)
    return respond(
        request, "errors.html", active="errors", window=window, grouping=grouping, groupings=GROUPINGS, listed=listed,
        trends=trends, total=total, cut=NEWEST if total > NEWEST and start != since else None, workflow=slug or "",
        slugs=await backend.workflow_slugs(), since=since,
    )  # fmt: skip


def _trends(counter: Any, shown: list[str], edges: list[int]) -> dict[str, Any]:
    return {key: bars(spread(counter.times[key], edges), edges, width=120, height=24) for key in shown}


async def error(request: Request) -> Response:
    """One group with its occurrences."""
    backend, window = desk_of(request).backend, window_of(request, "7d")
    grouping = grouping_of(request.query_params.get("grouping", ""))
    now = await backend.now()
    since = now - WINDOWS[window] * 1_000_000
    start = since if "all" in request.query_params else (await newest_failures(backend, since, NEWEST))[0]
    detail = await backend.get_error_detail(
        request.path_params["fingerprint"], grouping, start_us=start, end_us=now, limit=OCCURRENCES
    )
    edges = edges_of(since, now, PARTS * 2)
    chart = bars(spread([seen.timestamp_us for seen in detail.occurrences], edges), edges)
    return respond(
        request, "error.html", active="errors", detail=detail, grouping=grouping, window=window, since=start, chart=chart,
        cut=start != since, shown=OCCURRENCES,
    )  # fmt: skip
