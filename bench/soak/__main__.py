"""Run a soak and report on one page; exits with 1 where anything was lost, doubled or left undone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.soak.load import Load, Record
from bench.soak.nemesis import Nemesis
from bench.soak.world import NAMESPACE, World
from redisflow import Client
from redisflow.backend.keys import Keys
from redisflow.backend.redis.verify import Verifier
from redisflow.embedded.program import find_program

TERMINAL = ("completed", "failed", "cancelled")


@dataclass
class Findings:
    """What is wrong, in words, and what was counted."""

    problems: list[str]
    runs: int = 0
    steps: int = 0
    executions: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    verify_s: float = 0.0


class Pulse:
    """When the number of ended runs last rose, looked at 50 times a second."""

    def __init__(self, client: Client, nemesis: Nemesis) -> None:
        self.beats: list[float] = []
        self._client, self._nemesis = client, nemesis
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        key, last = Keys(NAMESPACE, "0").ended, 0
        while True:
            with contextlib.suppress(Exception):
                count = int(await asyncio.wait_for(self._client.backend.client.zcard(key), 0.5))
                if count > last:
                    self.beats.append(self._nemesis.clock)
                last = count
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def recoveries(self) -> list[tuple[float, str]]:
        """Seconds from the healing of each fault to the next run that ended, and the fault; shortest first."""
        found = []
        for fault in self._nemesis.faults:
            after = next((beat for beat in self.beats if beat >= fault.until), None)
            if after is not None:
                found.append((round(after - fault.until, 2), fault.name))
        return sorted(found)


async def soak(options: argparse.Namespace) -> int:
    world = World(options.server, options.workers, options.reclaimers)
    say = print if not options.quiet else lambda _: None
    try:
        async with Client(settings=world.settings()) as client:
            print(
                f"soak: seed {options.seed}, {options.minutes:g} min, {options.workers} workers, log {world.folder / 'log'}"
            )
            nemesis = Nemesis(world, options.seed, say)
            pulse, load = Pulse(client, nemesis), Load(client, options.seed, options.clients, options.pause)
            nemesis.start()
            await asyncio.sleep(options.minutes * 60)
            await asyncio.to_thread(nemesis.stop)
            await load.stop()
            settled = await _until_all_ended(client, 120)
            await pulse.stop()
            findings = await _judge(client, world, load.record)
            findings.problems += [] if settled else ["not every run became terminal within 120 s of the last fault"]
    finally:
        world.close()
    _report(options, nemesis, pulse, load.record, findings)
    return bool(findings.problems)


async def _until_all_ended(client: Client, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (await client.runs(status=["pending", "running"], limit=1))[1]:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _judge(client: Client, world: World, record: Record) -> Findings:
    findings = Findings([])
    before = time.perf_counter()
    async for violation in Verifier(client.backend).check():
        findings.problems.append(f"{violation.run_id} {violation.rule}: {violation.message}")
    findings.verify_s = time.perf_counter() - before
    states, _ = await client.runs(limit=None)
    known = {state.run_id: state.status for state in states}
    findings.runs, findings.statuses = len(known), Counter(known.values())
    findings.problems += [
        f"{run_id} was acknowledged, and is not there" for run_id in record.runs if run_id not in known
    ]
    findings.problems += [f"{key!r} stands for two runs" for key in record.broken_keys]
    findings.problems += [
        f"{run_id} was cancelled, and is {known.get(run_id)}"
        for run_id in record.cancelled
        if known.get(run_id) != "cancelled"
    ]
    effects = Counter((run, step) for run, step, _ in world.executions())
    findings.executions = sum(effects.values())
    for run_id in known:
        await _judge_effects(client, run_id, effects, findings)
    findings.problems += [f"{step} of {run} was executed, and is in no history" for run, step in effects]
    return findings


async def _judge_effects(client: Client, run_id: str, effects: Counter[tuple[str, str]], findings: Findings) -> None:
    """Each completed step was executed at least once, and no step more often than it was started."""
    events = await client.backend.load_wire_events(run_id)
    copied = any(event["type"] == "WorkflowRerunFromStep" for event in events)
    first = int(events[0]["timestampUs"])
    own = [event for event in events if not copied or event["timestampUs"] >= first]
    started = Counter(event["stepId"] for event in own if event["type"] == "StepStarted")
    completed = {event["stepId"] for event in own if event["type"] == "StepCompleted"}
    findings.steps += len(completed)
    for step in {*started, *completed}:
        done = effects.pop((run_id, step), 0)
        if done > started[step] or (step in completed and not done):
            findings.problems.append(f"{step} of {run_id}: {started[step]} starts, {done} executions")


def _report(options: argparse.Namespace, nemesis: Nemesis, pulse: Pulse, record: Record, findings: Findings) -> None:
    recoveries = pulse.recoveries()

    def quantile(q: float) -> float:
        return recoveries[min(len(recoveries) - 1, int(len(recoveries) * q))][0] if recoveries else 0.0

    report: dict[str, Any] = {
        "seed": options.seed, "minutes": options.minutes, "workers": options.workers, "python": platform.python_version(),
        "runs": findings.runs, "statuses": dict(findings.statuses), "stepsCompleted": findings.steps,
        "executions": findings.executions, "acknowledged": len(record.runs), "refusals": dict(record.refused),
        "faults": len(nemesis.faults), "faultsByKind": nemesis.counts,
        "recoverySeconds": {"p50": quantile(0.5), "p99": quantile(0.99), "max": quantile(1.0)},
        "slowest": recoveries[-1][1] if recoveries else "",
        "verifySeconds": round(findings.verify_s, 2), "problems": findings.problems,
    }  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    print()
    for name, value in report.items():
        if name != "problems":
            print(f"{name:>16}  {value}")
    print(f"{'violations':>16}  {len(findings.problems)}")
    for problem in findings.problems[:20]:
        print(f"{'':>16}  {problem}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Faults for minutes, then the books.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--reclaimers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two calls of a client, on average")
    parser.add_argument("--server", default=None, help="server program; default: the one of the embedded extra")
    parser.add_argument("--quiet", action="store_true", help="do not print each fault")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    options.server = options.server or find_program()
    logging.getLogger("redisflow").setLevel(logging.ERROR)  # faults are said by the nemesis
    return asyncio.run(soak(options))


if __name__ == "__main__":
    sys.exit(main())
