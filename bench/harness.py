"""What benchmarks share: a server of their own, CPU accounting; for those of one process also options, a table and JSON.

    python -m bench.lists --server redis-server --runs 5 --json bench/results/lists.json

Without `--server` it is the Valkey of the embedded extra. The server has no AOF and is ended by its handle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

from redisflow.backend.redis import RedisBackend
from redisflow.embedded.program import find_program
from redisflow.settings import Settings


@dataclass(frozen=True)
class Options:
    """Command line of a benchmark."""

    server: str
    runs: int
    count: int
    json: Path | None


class Server:
    """A server that lives as long as the block, on a free loopback port and a unix socket.

    Args:
        binary: program of the server.
        options: more options of its command line, such as `--appendonly yes`.
        wrapper: a program to run it under, with its options.
    """

    def __init__(self, binary: str, *options: str, wrapper: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rfb-"))
        path = self.folder / "redis.sock"
        self.url = f"unix://{path}"
        self.port = free_port()
        self.tcp_url = f"redis://127.0.0.1:{self.port}/0"
        command = [
            *wrapper, binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(path), "--save", "",
            "--dir", str(self.folder), "--stream-node-max-bytes", "1024", "--zset-max-listpack-entries", "0", *options,
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not path.exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit(f"{binary} did not start")
            time.sleep(0.01)
        self._client = redis.Redis(unix_socket_path=str(path))

    def info(self) -> dict[str, Any]:
        """Its INFO, all sections."""
        found: dict[str, Any] = self._client.info("all")
        return found

    def cpu(self) -> float:
        """CPU seconds that it has used."""
        found = self._client.info("cpu")
        return float(found["used_cpu_user"]) + float(found["used_cpu_sys"])

    def stop(self) -> None:
        """End it; its files stay until the block ends."""
        self._client.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def open_backend(url: str, partitions: int | None = None) -> RedisBackend:
    """A backend on a fresh namespace."""
    backend = RedisBackend(Settings(url=url, namespace=f"bench{uuid.uuid4().hex[:8]}", partitions=partitions))
    await backend.initialize(deadline_us=5_000_000)
    return backend


async def server_cpu(backend: RedisBackend) -> float:
    """CPU seconds that the server has used."""
    info = await backend.client.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def reach(condition: Callable[[], Awaitable[bool]], timeout: float = 300) -> None:
    """Wait for a condition, looking every 10 ms."""
    deadline = time.monotonic() + timeout
    while not await condition():
        if time.monotonic() > deadline:
            raise SystemExit("the benchmark did not finish")
        await asyncio.sleep(0.01)


def parse_options(description: str, *, count: int) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server", default=find_program(), help="server binary")
    parser.add_argument("--runs", type=int, default=3, help="repetitions; the table shows median, least and greatest")
    parser.add_argument("--count", type=int, default=count, help="workflow runs a repetition")
    parser.add_argument("--json", type=Path, help="write the results there")
    given = parser.parse_args()
    return Options(given.server, given.runs, given.count, given.json)


def report(title: str, options: Options, rows: dict[str, list[float]], units: dict[str, str]) -> None:
    """Print median, least and greatest of each measure, and write them as JSON."""
    table = Table(title=f"{title} · {Path(options.server).name} · {platform.machine()} · {options.runs} runs")
    for heading in ("measure", "median", "least", "greatest", "unit"):
        table.add_column(heading, justify="left" if heading in ("measure", "unit") else "right")
    for name, values in rows.items():
        shown = [statistics.median(values), min(values), max(values)]
        table.add_row(name, *(f"{value:,.2f}" if value < 100 else f"{value:,.0f}" for value in shown), units[name])
    Console().print(table)
    if options.json:
        record: dict[str, Any] = {
            "title": title, "server": Path(options.server).name, "machine": platform.machine(),
            "python": platform.python_version(), "count": options.count, "unit": units, "values": rows,
        }  # fmt: skip
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def percentile(values: list[float], q: float) -> float:
    """The value at index floor(n * q) of the ascending values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * q))]
