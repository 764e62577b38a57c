"""Lists of runs by status, workflow and tags: milliseconds a page of 50 out of 100,000 runs.

python -m bench.lists [--server redis-server] [--runs 3] [--count 100000]
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from bench.flows import chain, one
from bench.harness import Server, open_backend, parse_options, report
from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission

REPEATS = 20
CANCELLED_EVERY = 10
DEEP = 0.8
"""Where in the list the deep pages lie."""


def cases(count: int) -> dict[str, dict[str, Any]]:
    """The lists that are timed, by name."""
    deep = int(count * DEEP)
    return {
        "all": {},
        "all, deep": {"offset": deep},
        "pending": {"status": ["pending"]},
        "pending or cancelled, deep": {"status": ["pending", "cancelled"], "offset": deep},
        "one workflow": {"workflow_slug": one.slug},
        "one workflow, pending, deep": {"workflow_slug": one.slug, "status": ["pending"], "offset": deep // 2},
        "tag on half": {"tags": ["half"]},
        "tag on half, pending": {"tags": ["half"], "status": ["pending"]},
        "tags on half and tenth": {"tags": ["half", "tenth"], "status": ["pending"]},
        "tag on half, pending, middle": {"tags": ["half"], "status": ["pending"], "offset": count * 9 // 40},
        "tag on ten runs": {"tags": ["half", "rare"], "status": ["pending"]},
    }


async def fill(backend: RedisBackend, count: int) -> None:
    """Half of the runs in each of two workflows; one in ten is cancelled."""
    for flow in (one, chain):
        submissions = [Submission(tags=_tags(n, count)) for n in range(count // 2)]
        made = await backend.submit(flow.plan, submissions)
        cancelled = [result.run_id for result in made[::CANCELLED_EVERY]]
        for first in range(0, len(cancelled), 100):
            await asyncio.gather(*(backend.cancel_run(run_id) for run_id in cancelled[first : first + 100]))


def _tags(number: int, count: int) -> list[str]:
    tags = ["half"] if number % 2 else ["other"]
    if number % 10 == 3:
        tags.append("tenth")
    if number % (count // 10) == 1:
        tags.append("rare")
    return tags


async def measure(url: str, count: int) -> dict[str, float]:
    """One repetition on a fresh namespace: the median of several calls of each."""
    backend = await open_backend(url)
    try:
        await fill(backend, count)
        found = {}
        for name, options in cases(count).items():
            times = []
            for _ in range(REPEATS):
                began = time.perf_counter()
                page, total = await backend.list_runs(limit=50, **options)
                times.append((time.perf_counter() - began) * 1000)
            if not page or total < len(page):
                raise SystemExit(f"{name}: {len(page)} of {total} runs")
            found[name] = statistics.median(times)
        return found
    finally:
        await backend.close()


async def main() -> None:
    """Measure and print a table."""
    options = parse_options(str(__doc__), count=100_000)
    rows: dict[str, list[float]] = {name: [] for name in cases(options.count)}
    for _ in range(options.runs):
        with Server(options.server) as server:
            for name, value in (await measure(server.url, options.count)).items():
                rows[name].append(value)
    report(f"lists of {options.count:,} runs", options, rows, dict.fromkeys(rows, "ms"))


if __name__ == "__main__":
    asyncio.run(main())
