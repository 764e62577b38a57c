"""The servers of a soak: one with AOF, or a Cluster of three primaries with a replica each.

Either can be killed, frozen and started again, and is whole once `heal` returns.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import redis as redis_sync
from redis.backoff import NoBackoff
from redis.retry import Retry

from bench.soak.child import Child
from tests.clusters import TestCluster

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--busy-reply-threshold", "100")
PARTITIONS = 6  # of a Cluster: two a node
NODE_TIMEOUT = 4000  # ms: processes starve on a busy machine, and that is no fault


class Servers(Protocol):
    """What the world needs of them."""

    settings: dict[str, Any]
    """What clients and workers must be told besides: `url` and more."""

    def heal(self) -> None:
        """Everything runs and answers."""

    def close(self) -> None:
        """End every process."""


class Standalone:
    """One server on a unix socket.

    Args:
        binary: the server program.
    """

    def __init__(self, binary: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rfs-"))
        self.socket = self.folder / "redis.sock"
        self.settings: dict[str, Any] = {"url": f"unix://{self.socket}"}
        command = [
            binary, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.folder),
            "--stream-node-max-bytes", "1024", *DURABLE,
        ]  # fmt: skip
        self.process = Child("server", command, subprocess.DEVNULL)
        self.await_answer()

    def control(self) -> redis_sync.Redis:
        """A client that retries nothing."""
        return redis_sync.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0), socket_timeout=30)

    def await_answer(self) -> None:
        """Wait until the server answers."""
        with self.control() as control:
            wait_until(lambda: _answers(control), 60, "the server does not answer")

    def heal(self) -> None:
        """See `Servers`."""
        self.process.heal()
        self.await_answer()

    def close(self) -> None:
        """See `Servers`."""
        self.process.end()
        shutil.rmtree(self.folder, ignore_errors=True)


class Replicated:
    """A Cluster of three primaries with a replica each, as the tests have it.

    Args:
        binary: the server program.
    """

    def __init__(self, binary: str) -> None:
        options = (*DURABLE, "--cluster-require-full-coverage", "no")
        self.cluster = TestCluster(*options, replicas=1, node_timeout=NODE_TIMEOUT, binary=binary)
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.cluster.nodes)
        self.settings: dict[str, Any] = {
            "url": f"redis+cluster://{hosts}", "partitions": PARTITIONS, "durability": "replicated"
        }  # fmt: skip

    def heal(self) -> None:
        """See `Servers`: every node runs, and every replica has what its primary has, so that it may take its place."""
        for node in self.cluster.nodes:
            if node.alive:
                node.go_on()
            else:
                node.start()
        self.cluster.settle(60)
        self.cluster.in_step(60)

    def close(self) -> None:
        """See `Servers`."""
        self.cluster.close()


def _answers(control: redis_sync.Redis) -> bool:
    with contextlib.suppress(redis_sync.RedisError):
        return bool(control.ping())
    return False


def wait_until(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    """Poll a condition; SystemExit at the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(failure)
        time.sleep(0.02)
