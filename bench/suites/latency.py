"""Latency: one job at a time to an idle worker, from the submit call to the first line of the job."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

from bench.drive import driving
from bench.harness import percentile
from bench.peers import Peer
from bench.suites.base import Goal, Setup, Suite

WARM_UP = 20
PAUSE = 0.01
"""Seconds, with as much again at random, for the worker to fall idle; a poller is met anywhere in its pause."""
ENOUGH = 20.0
"""Seconds after which a slow peer has given samples enough."""


def _latency(peer: Peer, setup: Setup) -> Mapping[str, float]:
    with driving(peer, setup.server, setup.count, each=True) as drive, drive.process("work") as worker:
        samples = []
        with drive.process("submit") as client:
            drive.expect("ready", client)
            until = time.monotonic() + ENOUGH
            for _ in range(WARM_UP + setup.count):
                assert client.stdin is not None
                client.stdin.write(b"\n")
                client.stdin.flush()
                began = int(drive.expect("submit", client)[0])
                samples.append((int(drive.expect("start", worker)[0]) - began) / 1e6)
                if time.monotonic() > until and len(samples) > WARM_UP * 2:
                    break
                time.sleep(PAUSE * (1 + random.random()))
    samples = samples[min(WARM_UP, len(samples) // 2) :]
    return {"p50": percentile(samples, 0.5), "p99": percentile(samples, 0.99)}


LATENCY = Suite(
    "latency", "idle pick-up", 300, {"p50": "ms", "p99": "ms"}, _latency,
    goals={"p50": Goal(0.45, "most"), "p99": Goal(0.4, "most")},
)  # fmt: skip
