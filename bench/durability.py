"""What each way to run Redis costs a submit, and what it loses when the server is killed.

    python -m bench.durability

For each class: microseconds of a submit (median, one after the other), and how many of the acknowledged runs are missing after
SIGKILL of the server and a restart, or a failover to a replica that had stopped to follow. The loss at a power cut cannot be seen
on one machine; docs/reliability.md reasons about it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis as redis_sync
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.console import Console
from rich.table import Table

from bench.flows import one
from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission
from redisflow.embedded.program import find_program
from redisflow.model.errors import NotReplicated
from redisflow.model.workflow import Plan
from redisflow.settings import Settings

AOF = ("--appendonly", "yes", "--appendfsync")


@dataclass(frozen=True)
class Class:
    """One way to run Redis."""

    name: str
    options: tuple[str, ...] = ()
    replica: bool = False
    wait: bool = False


CLASSES = (
    Class("no AOF"),
    Class("AOF everysec", (*AOF, "everysec")),
    Class("AOF always", (*AOF, "always")),
    Class("everysec, replica", (*AOF, "everysec"), replica=True),
    Class("everysec, replicated submits", (*AOF, "everysec"), replica=True, wait=True),
)


class Process:
    """A server with a folder and a loopback port of its own."""

    def __init__(self, binary: str, port: int, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rfd-"))
        self.port = port
        self.command = [
            binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.folder),
            "--repl-diskless-sync-delay", "0", *options,
        ]  # fmt: skip
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with self.client() as client:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                with contextlib.suppress(redis_sync.RedisError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise SystemExit("the server did not start")

    def client(self) -> redis_sync.Redis:
        return redis_sync.Redis(port=self.port, retry=Retry(NoBackoff(), 0))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def servers(binary: str, kind: Class) -> Iterator[tuple[Process, Process | None]]:
    first = Process(binary, _free_port(), *kind.options)
    second = Process(binary, _free_port(), "--replicaof", "127.0.0.1", str(first.port)) if kind.replica else None
    started = [first] if second is None else [first, second]
    try:
        if second is not None:
            with first.client() as client:
                client.set("probe", 1, px=60_000)
                if client.execute_command("WAIT", 1, 20_000) != 1:
                    raise SystemExit("the replica does not follow")
        yield first, second
    finally:
        for server in started:
            server.process.send_signal(signal.SIGCONT)
            server.kill()
            shutil.rmtree(server.folder, ignore_errors=True)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def measure(binary: str, kind: Class, count: int) -> tuple[float, int, int, int]:
    """Median µs of a submit; runs acknowledged; runs missing after SIGKILL; runs missing after a failover."""
    plan = one.plan
    with servers(binary, kind) as (primary, replica):
        backend = RedisBackend(Settings(url=f"redis://127.0.0.1:{primary.port}", namespace="bench"))
        await backend.initialize()
        taken, ids = await submit(backend, plan, kind, count)
        lost_by_failover = 0
        if replica is not None:
            replica.process.send_signal(signal.SIGSTOP)
            with primary.client() as client:
                client.execute_command("CLIENT", "KILL", "TYPE", "REPLICA")  # else it still reads what is in the socket
            _, late = await submit(backend, plan, kind, count // 10)
            ids += late
        primary.kill()
        if replica is not None:
            replica.process.send_signal(signal.SIGCONT)
            with replica.client() as client:
                client.replicaof("NO", "ONE")
                lost_by_failover = missing(client, backend, ids)
        primary.start()
        with primary.client() as client:
            lost = missing(client, backend, ids)
        await backend.close()
    return statistics.median(taken) * 1e6, len(ids), lost, lost_by_failover


async def submit(backend: RedisBackend, plan: Plan, kind: Class, count: int) -> tuple[list[float], list[str]]:
    """Seconds of each submit, and the runs that were acknowledged in the sense of the class."""
    taken, ids = [], []
    for _ in range(count):
        before = time.perf_counter()
        (result,) = await backend.submit(plan, [Submission(input="1")])
        if kind.wait:
            try:
                await backend.confirm_replicated([result.run_id], timeout_us=20_000)
            except NotReplicated:
                continue
        taken.append(time.perf_counter() - before)
        ids.append(result.run_id)
    return taken, ids


def missing(client: redis_sync.Redis, backend: RedisBackend, ids: list[str]) -> int:
    """How many of the runs are not there."""
    keys = backend.partitions[0]
    return sum(not client.exists(keys.run(run_id)) for run_id in ids)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.durability", description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--server", default=None)
    options = parser.parse_args()
    table = Table(
        "class", "µs a submit", "acknowledged", "lost by SIGKILL", "lost by failover", title="durability classes"
    )
    for kind in CLASSES:
        median, count, lost, failover = asyncio.run(measure(options.server or find_program(), kind, options.count))
        table.add_row(kind.name, f"{median:,.0f}", str(count), str(lost), str(failover) if kind.replica else "-")
    Console().print(table)


if __name__ == "__main__":
    main()
