"""Claims: how many a second one line takes, and how soon an idle worker begins a step that is submitted.

python -m bench.claim [--server redis-server] [--runs 3] [--count 20000]
"""

from __future__ import annotations

import asyncio
import time

from bench.flows import one
from bench.harness import Server, open_backend, parse_options, percentile, reach, report
from redisflow import Worker, Workflow
from redisflow.backend.turns import MAX_CLAIMS, Lane, TurnAnswer, TurnLink
from redisflow.backend.types import Submission
from redisflow.codec import pack

UNITS = {"claims": "claims/s", "pick-up p50": "ms", "pick-up p99": "ms"}
PICK_UPS = 500


async def claims_per_second(url: str, count: int) -> float:
    """Claim everything that is scheduled over one line with two lanes, and run nothing."""
    backend = await open_backend(url)
    await backend.submit(one.plan, [Submission() for _ in range(count)])
    taken, done = 0, asyncio.Event()

    def on_answer(link: TurnLink, lane: Lane, answer: TurnAnswer) -> None:
        nonlocal taken
        taken += len(answer.claims)
        if taken >= count:
            done.set()
        else:
            link.send(lane, list(range(MAX_CLAIMS)), False)

    body = pack({"wi": "bench.0", "wc": 100})[1:]
    link = TurnLink(
        backend,
        0,
        worker="bench.0",
        queues=[one.slug],
        body=body,
        on_answer=on_answer,
        on_fatal=lambda error: done.set(),
    )
    await link.open()
    began = time.perf_counter()
    for lane in link.lanes:
        link.send(lane, list(range(MAX_CLAIMS)), False)
    await done.wait()
    took = time.perf_counter() - began
    link.close()
    await backend.client.flushall()
    await backend.close()
    return count / took


async def pick_ups(url: str) -> list[float]:
    """Milliseconds from the call of submit to the first line of the step, on an idle worker, one at a time."""
    backend = await open_backend(url)
    flow = Workflow("bench-pick-up")
    began = 0.0
    samples: list[float] = []

    @flow.step
    async def sample() -> None:
        samples.append((time.perf_counter() - began) * 1000)

    async with Worker(backend, [flow], concurrency=10) as worker:
        for number in range(PICK_UPS):

            async def idle(number: int = number) -> bool:
                return len(samples) == number and worker.running == 0 and worker.asleep

            await reach(idle)
            began = time.perf_counter()
            await backend.submit(flow.plan, [Submission()])
        await reach(lambda: _is(len(samples) == PICK_UPS))
    await backend.close()
    return samples[10:]


async def _is(value: bool) -> bool:
    return value


async def main() -> None:
    """Measure and print the table."""
    options = parse_options(str(__doc__), count=20_000)
    rows: dict[str, list[float]] = {name: [] for name in UNITS}
    for _ in range(options.runs):
        with Server(options.server) as server:
            rows["claims"].append(await claims_per_second(server.url, options.count))
            samples = await pick_ups(server.url)
        rows["pick-up p50"].append(percentile(samples, 0.5))
        rows["pick-up p99"].append(percentile(samples, 0.99))
    report("claims", options, rows, UNITS)


if __name__ == "__main__":
    asyncio.run(main())
