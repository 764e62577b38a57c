"""The processes of a soak: a server with AOF, workers, reclaimers; each can be killed, frozen and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import redis as redis_sync
from redis.backoff import NoBackoff
from redis.retry import Retry

from redisflow.settings import Settings

ROOT = Path(__file__).parents[2]
LIMITS = {
    "REDISFLOW_STALE_AFTER": "3s", "REDISFLOW_HEARTBEAT_INTERVAL": "500ms", "REDISFLOW_RECLAIM_INTERVAL": "200ms",
    "REDISFLOW_DRAIN_TIMEOUT": "2s",
}  # fmt: skip
NAMESPACE = "soak"


class Child:
    """A process that is started again after it died."""

    def __init__(self, name: str, command: list[str], log: IO[bytes], environment: dict[str, str]) -> None:
        self.name = name
        self._start = lambda: subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=ROOT)
        self.process = self._start()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def drain(self) -> None:
        """SIGTERM, and SIGKILL where that is not enough."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def start(self) -> None:
        """Start it where it does not run."""
        if self.process.poll() is not None:
            self.process = self._start()


class World:
    """Everything that runs outside this process.

    Args:
        binary: the server program.
        workers, reclaimers: how many processes of each.
    """

    def __init__(self, binary: str, workers: int, reclaimers: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rfs-"))
        self.socket = self.folder / "redis.sock"
        self.ledger = self.folder / "ledger"
        self._log = (self.folder / "log").open("ab")
        environment = {
            **os.environ, **LIMITS, "REDISFLOW_URL": self.url, "REDISFLOW_NAMESPACE": NAMESPACE, "PYTHONPATH": str(ROOT),
            "SOAK_LEDGER": str(self.ledger),
        }  # fmt: skip
        server = [
            binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.folder), "--appendonly", "yes",
            "--appendfsync", "always", "--stream-node-max-bytes", "1024", "--busy-reply-threshold", "100",
        ]  # fmt: skip
        self.server = Child("server", server, self._log, environment)
        self.await_server()
        redisflow = [sys.executable, "-m", "redisflow"]
        self.workers = [
            Child(
                f"worker {n}", [*redisflow, "worker", "bench.soak.flows", "--concurrency", "20"], self._log, environment
            )
            for n in range(workers)
        ]
        self.reclaimers = [
            Child(f"reclaimer {n}", [*redisflow, "reclaimer"], self._log, environment) for n in range(reclaimers)
        ]

    @property
    def url(self) -> str:
        """Of the server."""
        return f"unix://{self.socket}"

    def settings(self) -> Settings:
        """As the processes have them."""
        limits: dict[str, Any] = {name.removeprefix("REDISFLOW_").lower(): value for name, value in LIMITS.items()}
        return Settings(url=self.url, namespace=NAMESPACE, **limits)

    def control(self) -> redis_sync.Redis:
        """A client that retries nothing."""
        return redis_sync.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0), socket_timeout=30)

    def await_server(self) -> None:
        """Wait until the server answers."""
        with self.control() as control:
            wait_until(lambda: _answers(control), 60, "the server does not answer")

    def heal(self) -> None:
        """Everything runs again."""
        for child in (self.server, *self.workers, *self.reclaimers):
            if child.process.poll() is None:
                child.thaw()
            child.start()
        self.await_server()

    def executions(self) -> list[tuple[str, str, int]]:
        """Run, step and attempt of every line of the ledger."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [(run, step, int(attempt)) for run, step, attempt in (line.split() for line in lines)]

    def close(self) -> None:
        """End all processes; the folder goes too."""
        for child in (*self.workers, *self.reclaimers, self.server):
            if child.process.poll() is None:
                child.thaw()
                child.kill()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _answers(control: redis_sync.Redis) -> bool:
    try:
        return bool(control.ping())
    except redis_sync.RedisError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    """Poll a condition; SystemExit at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(failure)
        time.sleep(0.02)
