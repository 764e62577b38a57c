"""Figures over a namespace of ended runs of 30 events each: seconds an answer, and the memory that it takes.

python -m bench.analytics [--server redis-server] [--runs 3] [--count 10000]
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from bench.harness import Server, parse_options, report
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.analytics import Analytics
from redisflow.backend.types import Submission
from redisflow.codec import pack
from redisflow.model.workflow import Edge, Plan, PlanStep
from redisflow.settings import Settings

STEPS = 8
BATCH = 20  # runs an append: 600 events
UNITS = {
    "events": "events", "get_analytics_summary": "s", "... of one workflow": "s", "... of a time before": "s",
    "get_throughput": "s", "get_error_analysis": "s", "get_errors_list": "s", "get_error_detail": "s",
    "get_active_workers": "s", "get_queue_depth": "s", "get_queue_depth_by_workflow": "s", "memory of a summary": "MB",
}  # fmt: skip
ERROR = {"name": "ValueError", "message": "boom", "stack": "Traceback (most recent call last):\n" * 10}


class Backend(RedisBackend, Analytics):
    """The backend with its figures."""


def chain() -> Plan:
    """Eight steps, one after the other."""
    steps = []
    for n in range(STEPS):
        needs = (f"s{n - 1}",) if n else ()
        edges = tuple(Edge(step=need, kind="required") for need in needs)
        steps.append(PlanStep(id=f"s{n}", name=f"s{n}", dependencies=edges, params=needs, queue="bench"))
    return Plan(slug="bench", name="bench", steps=tuple(steps))


def history(run_id: str, number: int) -> Iterator[Any]:
    """The 30 events of a run, of which one step needs a second attempt, as `append` takes them."""

    def event(kind: str, step: str = "", payload: str = "", **fields: Any) -> list[Any]:
        return [run_id, kind, step, pack(fields), payload, ""]

    yield from event("RunSubmitted", pl=number)
    yield from event("WorkflowStarted", pl=number, w=1, hs=False, hi=False)
    for n in range(STEPS):
        step = f"s{n}"
        yield from event("StepScheduled", step, a=1, r="d")
        yield from event("StepStarted", step, a=1, dp=[f"s{n - 1}"] if n else [], wi="bench.0", wc=100)
        if n == 3:
            yield from event("StepFailed", step, a=1, d=900, e=ERROR, fp=["ab" * 20] * 5, t=False, f="timeout")
            yield from event("StepRetrying", step, a=1, na=2, e=ERROR)
            yield from event("StepReclaimed", step, a=1, ow="bench.0", rb="r", lh=1, th=1, sd=1)
            yield from event("StepCompleted", step, '{"value": 1}', a=2, d=700, x=False)
        else:
            yield from event("StepCompleted", step, '{"value": 1}', a=1, d=500 + n, x=False)
    yield from event("WorkflowCompleted", w=1, d=12_000, n=STEPS)


async def populate(backend: Backend, plan: Plan, count: int) -> int:
    """Append the runs; answers with the number of their events."""
    number, events = await backend.plan_number(plan, 0), 0
    for first in range(0, count, BATCH):
        rest = [part for run in range(first, first + BATCH) for part in history(f"run-{run}", number)]
        events += len(rest) // 6
        await backend.call("append", 0, rest)
    return events


async def seconds(call: Callable[[], Awaitable[Any]]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    await call()
    return time.perf_counter() - began


async def measure(url: str, count: int) -> dict[str, float]:
    """One repetition on a fresh namespace."""
    backend = Backend(Settings(url=url, namespace=f"bench{uuid.uuid4().hex[:8]}"))
    await backend.initialize(deadline_us=5_000_000)
    try:
        plan = chain()
        before = await backend.now()
        found: dict[str, float] = {"events": await populate(backend, plan, count)}
        await backend.submit(plan, [Submission() for _ in range(count)])
        found["get_analytics_summary"] = await seconds(backend.get_analytics_summary)
        found["... of one workflow"] = await seconds(lambda: backend.get_analytics_summary(workflow_slug="bench"))
        found["... of a time before"] = await seconds(
            lambda: backend.get_analytics_summary(start_us=before - 2, end_us=before - 1)
        )
        for name in (
            "get_throughput", "get_error_analysis", "get_errors_list", "get_active_workers", "get_queue_depth",
            "get_queue_depth_by_workflow",
        ):  # fmt: skip
            found[name] = await seconds(getattr(backend, name))
        group = (await backend.get_errors_list()).errors[0]
        found["get_error_detail"] = await seconds(lambda: backend.get_error_detail(group.fingerprint))
        if group.count != count:
            raise SystemExit(f"{group.count:,} failures of one fingerprint instead of {count:,}")
        tracemalloc.start()
        await backend.get_analytics_summary()
        found["memory of a summary"] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        return found
    finally:
        await backend.client.flushall()
        await backend.close()


async def main() -> None:
    """Measure and print the table."""
    options = parse_options(str(__doc__), count=10_000)
    rows: dict[str, list[float]] = {name: [] for name in UNITS}
    for _ in range(options.runs):
        with Server(options.server) as server:
            for name, value in (await measure(server.url, options.count)).items():
                rows[name].append(value)
    report(f"analytics, {options.count:,} ended and as many pending runs", options, rows, UNITS)


if __name__ == "__main__":
    asyncio.run(main())
