"""Pages of the dashboard over many runs: server time and weight of each.

python -m bench.pages [--server redis-server] [--runs 1] [--count 100000]

A page is asked for through ASGI, so that what is timed is the application with Redis. A real worker ends the runs; one in 25
fails, and some are live.
"""

from __future__ import annotations

import asyncio
import statistics
import time

import httpx

from bench.harness import Server, parse_options, reach, report
from redisflow import Client, Submission, Worker, Workflow
from redisflow.settings import Settings
from redisflow.web import create_app

REPEATS = 15
FAILED_EVERY = 25
LIVE_EVERY = 100
LIMIT_MS, LIMIT_KB = 100, 200


pages = Workflow("bench-pages", input=int)


@pages.step
async def first(number: int) -> int:
    """One in 25 fails."""
    if number % FAILED_EVERY == 1:
        raise ValueError(f"no {number % 7}")
    return number


@pages.step(export=True)
async def second(first: int) -> int:
    """Nothing."""
    return first


async def fill(client: Client, count: int) -> dict[str, str]:
    """Runs that a worker has brought to their end, one in 100 left pending; gives the pages to ask for."""
    backend = client.backend
    await backend.register_plan(pages.plan)
    made = await client.submit_many(pages, [Submission(n, tags=["half"] if n % 2 else []) for n in range(count)])

    async def drained() -> bool:
        return (await backend.list_runs(status=["pending", "running"], limit=1))[1] == 0

    async with Worker(client, [pages], concurrency=500):
        await reach(drained)
    await client.submit_many(pages, [Submission(n, delay="1h") for n in range(count // LIVE_EVERY)])
    detail = await backend.get_errors_list(limit=1)
    return {
        "overview": "/?window=24h", "runs": "/runs", "runs, deep": f"/runs?page={count // 80}",
        "runs, filtered": "/runs?status=failed&tag=half", "runs, by time": "/runs?since=24h",
        "runs, by time and tag": "/runs?since=24h&tag=half&status=failed", "runs, by id": "/runs?id=zz9",
        "run": f"/runs/{made[-1].id}",
        "errors": "/errors", "error": f"/errors/{detail.errors[0].fingerprint}", "workflows": "/workflows",
        "workflow": f"/workflows/{pages.slug}", "queues": "/queues", "workers": "/workers",
    }  # fmt: skip


async def measure(url: str, count: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds and kilobytes of each page."""
    found = {}
    async with Client(settings=Settings(url=url, namespace="bench")) as client:
        paths = await fill(client, count)
        app = create_app(client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            for name, path in paths.items():
                times, size = [], 0
                for _ in range(REPEATS):
                    began = time.perf_counter()
                    answer = await http.get(path)
                    times.append((time.perf_counter() - began) * 1000)
                    if answer.status_code != 200:
                        raise SystemExit(f"{path}: {answer.status_code} {answer.text[:300]}")
                    size = len(answer.content)
                found[name] = (statistics.median(times), size / 1024)
    return found


async def main() -> None:
    """Measure, print a table, and fail where a page is too slow or too heavy."""
    options = parse_options(str(__doc__), count=100_000)
    rows: dict[str, list[float]] = {}
    units: dict[str, str] = {}
    for _ in range(options.runs):
        with Server(options.server) as server:
            for name, (took, weight) in (await measure(server.url, options.count)).items():
                rows.setdefault(name, []).append(took)
                rows.setdefault(f"{name}, weight", []).append(weight)
                units.update({name: "ms", f"{name}, weight": "KB"})
    report(f"pages with {options.count:,} runs", options, rows, units)
    limits = {"ms": LIMIT_MS, "KB": LIMIT_KB}
    over = [name for name, values in rows.items() if statistics.median(values) > limits[units[name]]]
    if over:
        raise SystemExit(f"over {LIMIT_MS} ms or {LIMIT_KB} KB: {', '.join(over)}")


if __name__ == "__main__":
    asyncio.run(main())
