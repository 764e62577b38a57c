"""Drain: N no-op jobs are queued, then one worker process is started; jobs over the time from first start to last finish."""

from __future__ import annotations

from collections.abc import Mapping

from bench.drive import driving
from bench.harness import Server
from bench.peers import Peer
from bench.suites.base import Goal, Setup, Suite

STEPS = 3
TURNS = {"turns": "calls/step"}
"""How much a turn of redisflow's worker gathers; of no meaning for others."""


def drain(peer: Peer, setup: Setup, *options: str, steps: int = 1) -> dict[str, float]:
    """One drain on a fresh server.

    Args:
        peer: who.
        setup: how many.
        options: more options of the server.
        steps: of each workflow; 1 is a plain job.
    """
    jobs = setup.count * steps
    with driving(peer, setup.server, setup.count, *options, jobs=jobs) as drive:
        used = drive.server.info()["used_memory"]
        took = drive.call("enqueue" if steps == 1 else "chain")
        with drive.process("work") as worker:
            first = [int(word) for word in drive.expect("first", worker)]
            cpu, calls = drive.server.cpu(), _scripts(drive.server)
            last = [int(word) for word in drive.expect("last", worker)]
            cpu, calls = drive.server.cpu() - cpu, _scripts(drive.server) - calls
            kept = drive.server.info()["used_memory"] - used
    found = {
        "rate": jobs / (last[0] - first[0]) * 1e9, "server CPU": cpu / jobs * 1e6,
        "worker CPU": (last[1] - first[1]) / jobs / 1e3, "memory": kept / setup.count, "enqueued": setup.count / took,
        "turns": calls / jobs,
    }  # fmt: skip
    if not peer.own:
        del found["turns"]
    return found if peer.redis else {name: found[name] for name in ("rate", "worker CPU", "enqueued")}


def _scripts(server: Server) -> int:
    """Calls of scripts so far."""
    return int(server.info().get("cmdstat_fcall", {}).get("calls", 0))


def _drain(peer: Peer, setup: Setup) -> Mapping[str, float]:
    return drain(peer, setup)


def _chain(peer: Peer, setup: Setup) -> Mapping[str, float]:
    return drain(peer, setup, steps=STEPS)


def _memory(peer: Peer, setup: Setup) -> Mapping[str, float]:
    """The difference of two sizes, so that what does not grow with the jobs is left out."""
    small, found = Setup(setup.server, setup.count // 4), {}
    for name, steps in (("1-step run", 1), ("3-step chain", STEPS)):
        if steps == 1 or peer.chains:
            less, more = (drain(peer, size, steps=steps)["memory"] * size.count for size in (small, setup))
            found[name] = (more - less) / (setup.count - small.count)
    return found


def _durability(peer: Peer, setup: Setup) -> Mapping[str, float]:
    plain = drain(peer, setup)["rate"]
    safe = drain(peer, setup, "--appendonly", "yes", "--appendfsync", "everysec")["rate"]
    return {"no AOF": plain, "AOF everysec": safe, "everysec to none": safe / plain}


def _own(peer: Peer) -> bool:
    return peer.own


DRAIN = Suite(
    "drain", "drain, 1-step runs", 50_000,
    {"rate": "jobs/s", "server CPU": "µs/job", "worker CPU": "µs/job"} | TURNS, _drain,
    goals={"rate": Goal(1.4, "least"), "server CPU": Goal(0.75, "most"), "worker CPU": Goal(0.5, "most")},
)  # fmt: skip
CHAIN = Suite(
    "chain", "drain, 3-step chains", 10_000, {"rate": "steps/s", "server CPU": "µs/step", "worker CPU": "µs/step"} | TURNS, _chain,
    takes=lambda peer: peer.chains, goals={"rate": Goal(2, "least")},
)  # fmt: skip
MEMORY = Suite(
    "memory", "memory kept after the end", 10_000, {"1-step run": "bytes", "3-step chain": "bytes"}, _memory,
    takes=lambda peer: peer.redis,
    goals={"1-step run": Goal(1_900, "most", ""), "3-step chain": Goal(2_800, "most", "")},
)  # fmt: skip
DURABILITY = Suite(
    "durability", "drain with an append-only file", 20_000,
    {"no AOF": "jobs/s", "AOF everysec": "jobs/s", "everysec to none": "ratio"}, _durability, takes=_own,
    goals={"everysec to none": Goal(0.75, "least", "")},
)  # fmt: skip
