"""What every benchmark shares: a server of its own, CPU accounting, and results as a table and as JSON.

    python -m bench.drain --server redis-server --runs 5 --json bench/results/drain.json

Without `--server` it is the Valkey of the embedded extra. The server has no AOF and listens on a unix socket; it is ended by its
handle.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """A server that lives as long as the block."""

    def __init__(self, binary: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rfb-"))
        socket = self.folder / "redis.sock"
        self.url = f"unix://{socket}"
        command = [
            binary, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(self.folder),
            "--stream-node-max-bytes", "1024", "--zset-max-listpack-entries", "0",
        ]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not socket.exists():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise SystemExit(f"{binary} did not start")
            time.sleep(0.01)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


async def open_backend(url: str) -> RedisBackend:
    """A backend on a fresh namespace."""
    backend = RedisBackend(Settings(url=url, namespace=f"bench{uuid.uuid4().hex[:8]}"))
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
