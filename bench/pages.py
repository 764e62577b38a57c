"""Pages of the dashboard over many runs: server time and weight of each.

python -m bench.pages [--server redis-server] [--runs 1] [--count 100000]

A page is asked for through ASGI, so that what is timed is the application with Redis. Most runs are completed by writing their events,
some thousand fail, some are live.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import httpx

from bench.flows import chain, one
from bench.harness import Server, parse_options, report
from redisflow.backend.types import Submission
from redisflow.client import Client
from redisflow.codec import pack
from redisflow.settings import Settings
from redisflow.web import create_app

REPEATS = 15
FAILED_EVERY = 25
LIVE_EVERY = 100
LIMIT_MS, LIMIT_KB = 100, 200
PRINTS = ["ab" * 20] * 5


async def fill(client: Client, count: int) -> dict[str, str]:
    """Runs of two workflows: completed, one in 25 failed, one in 100 pending; gives the pages to ask for."""
    backend = client.backend
    for flow in (one, chain):
        await backend.register_plan(flow.plan)
    short = await backend.submit(one.plan, [Submission(input='{"n":1}', tags=["half"]) for _ in range(count * 9 // 10)])
    longer = await backend.submit(chain.plan, [Submission(input='{"n":1}') for _ in range(count // 10)])
    step = one.plan.steps[0].id
    await _end(client, [run.run_id for n, run in enumerate(short) if n % LIVE_EVERY], step)
    last = longer[0].run_id
    for planned in chain.plan.steps:
        claim = await backend.claim_step(last, planned.id, "bench")
        assert claim is not None
        await backend.complete_step(claim, "1")
    detail = await backend.get_errors_list(limit=1)
    return {
        "overview": "/?window=24h", "runs": "/runs", "runs, deep": f"/runs?page={count // 80}", "runs, filtered": "/runs?status=failed&tag=half",
        "runs, by time": "/runs?since=15m", "run": f"/runs/{last}", "errors": "/errors", "error": f"/errors/{detail.errors[0].fingerprint}",
        "workflows": "/workflows", "workflow": f"/workflows/{one.slug}", "queues": "/queues", "workers": "/workers",
    }  # fmt: skip


async def _end(client: Client, runs: list[str], step: str) -> None:
    """End runs by turns of a worker that claims and completes without a body."""
    backend, queue, seq = client.backend, one.plan.steps[0].queue, 0
    outcomes: list[Any] = []
    done = 0
    while done < len(runs):
        seq += 1
        reply = await backend.call(
            "turn", 0, [word for outcome in outcomes for word in outcome], worker="bench.x", lane=0, seq=seq, want=64, queues=queue,
            slots=b"".join(b"\xcd" + slot.to_bytes(2, "big") for slot in range(64)), body=pack({"wi": "bench", "wc": 64})[1:], asleep=0,
        )  # fmt: skip
        done += len(outcomes)
        outcomes = [_outcome(claim[0], claim[1], reply[1], done + n) for n, claim in enumerate(reply[5])]
        if not outcomes:
            return


def _outcome(run: bytes, step: bytes, lease: int, number: int) -> list[Any]:
    if number % FAILED_EVERY:
        return [run, step, lease, "c", pack({"a": 1, "d": 5, "x": False}), "1", ""]
    error = {"name": "ValueError", "message": f"no {number % 7}", "stack": "Traceback …"}
    return [run, step, lease, "f", pack({"a": 1, "d": 5, "e": error, "fp": PRINTS, "f": "execution-error"}), "", ""]


async def measure(url: str, count: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds and kilobytes of each page."""
    found = {}
    async with Client(settings=Settings(url=url, namespace="bench")) as client:
        pages = await fill(client, count)
        app = create_app(client)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            for name, path in pages.items():
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
