"""Submit and drain: runs/s submitted, steps/s drained by one worker process, CPU a step, bytes a run.

python -m bench.drain [--server redis-server] [--runs 3] [--count 20000]
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from bench.flows import chain, one
from bench.harness import Server, open_backend, parse_options, reach, report, server_cpu
from redisflow import Worker, Workflow
from redisflow.backend.types import Submission

UNITS = {
    "submit_many": "runs/s", "drain": "steps/s", "server CPU": "µs/step", "worker CPU": "µs/step", "memory": "bytes/run",
    "turns": "calls/step",
}  # fmt: skip


async def measure(url: str, flow: Workflow[Any, Any], count: int) -> dict[str, float]:
    """One repetition on a fresh namespace."""
    backend = await open_backend(url)
    try:
        used = (await backend.client.info("memory"))["used_memory"]
        began = time.perf_counter()
        await backend.submit(flow.plan, [Submission() for _ in range(count)])
        submitted = time.perf_counter() - began
        await backend.register_plan(flow.plan, location=flow.location)  # asks git once; not what is measured here
        gc.collect()
        steps = count * len(flow.steps)
        done = backend.partitions[0].index(flow.slug, "completed")

        async def finished() -> bool:
            return bool(await backend.client.zcard(done) >= count)

        await backend.client.config_resetstat()
        cpu, own, began = await server_cpu(backend), time.process_time(), time.perf_counter()
        async with Worker(backend, [flow], concurrency=100):
            await reach(finished)
            took = time.perf_counter() - began
            own, cpu = time.process_time() - own, await server_cpu(backend) - cpu
        calls = (await backend.client.info("commandstats"))["cmdstat_evalsha"]["calls"]
        kept = (await backend.client.info("memory"))["used_memory"] - used
        return {
            "submit_many": count / submitted, "drain": steps / took, "server CPU": cpu / steps * 1e6,
            "worker CPU": own / steps * 1e6, "memory": kept / count, "turns": calls / steps,
        }  # fmt: skip
    finally:
        await backend.client.flushall()
        await backend.close()


async def main() -> None:
    """Measure both shapes and print a table each."""
    options = parse_options(str(__doc__), count=20_000)
    for flow, name in ((one, "1-step runs"), (chain, "3-step chains")):
        rows: dict[str, list[float]] = {name: [] for name in UNITS}
        for _ in range(options.runs):
            with Server(options.server) as server:
                for measure_name, value in (await measure(server.url, flow, options.count)).items():
                    rows[measure_name].append(value)
        report(f"drain, {name}", options, rows, UNITS)


if __name__ == "__main__":
    asyncio.run(main())
