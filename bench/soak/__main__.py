"""Run a soak and report on one page; exits with 1 where anything was lost, doubled or left undone."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import sys
import time
from pathlib import Path
from typing import Any

from bench.soak.books import Books, Findings
from bench.soak.cluster_faults import ClusterNemesis
from bench.soak.load import Load, Record
from bench.soak.nemesis import Nemesis
from bench.soak.pulse import Pulse
from bench.soak.server_faults import ServerNemesis
from bench.soak.servers import Replicated, Standalone
from bench.soak.world import World
from redisflow import Client
from redisflow.embedded.program import find_program


async def soak(options: argparse.Namespace) -> int:
    servers = (Replicated if options.cluster else Standalone)(options.server)
    world: World[Any] = World(servers, options.workers, options.reclaimers)
    say = print if not options.quiet else lambda _: None
    try:
        async with Client(settings=world.settings()) as client:
            print(
                f"soak: seed {options.seed}, {options.minutes:g} min, {options.workers} workers, log {world.folder / 'log'}"
            )
            nemesis = (
                ClusterNemesis(world, options.seed, say, client.backend.partitions)
                if options.cluster
                else ServerNemesis(world, options.seed, say)
            )
            pulse, load = Pulse(client, nemesis), Load(client, options.seed, options.clients, options.pause)
            nemesis.start()
            await asyncio.sleep(options.minutes * 60)
            await asyncio.to_thread(nemesis.stop)
            await load.stop()
            settled = await _until_all_ended(client, 120)
            await pulse.stop()
            findings = await Books(client, load.record, world.executions(), nemesis.near_failover).judge()
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


def _report(
    options: argparse.Namespace, nemesis: Nemesis[Any], pulse: Pulse, record: Record, findings: Findings
) -> None:
    recoveries = pulse.recoveries()

    def quantile(q: float) -> float:
        return recoveries[min(len(recoveries) - 1, int(len(recoveries) * q))][0] if recoveries else 0.0

    report: dict[str, Any] = {
        "servers": "cluster" if options.cluster else "standalone", "seed": options.seed,
        "minutes": options.minutes, "workers": options.workers, "python": platform.python_version(),
        "runs": findings.runs, "statuses": dict(findings.statuses), "stepsCompleted": findings.steps,
        "executions": findings.executions, "acknowledged": len(record.runs), "refusals": dict(record.refused),
        "undoneByFailovers": dict(findings.undone), "faults": len(nemesis.faults), "faultsByKind": nemesis.counts,
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
    parser.add_argument("--cluster", action="store_true", help="three primaries with a replica each, not one server")
    parser.add_argument("--server", default=None, help="server program; default: the one of the embedded extra")
    parser.add_argument("--quiet", action="store_true", help="do not print each fault")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    options.server = options.server or find_program()
    logging.getLogger("redisflow").setLevel(logging.ERROR)  # faults are said by the nemesis
    return asyncio.run(soak(options))


if __name__ == "__main__":
    sys.exit(main())
