"""A primary, its replica and three sentinels, real processes on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis as redis_sync

from tests.conftest import TestServer, free_port, server_binary, until

SERVICE = "mymaster"


class Sentinels:
    """Sentinels that fail over one second after the primary fell silent.

    Args:
        count: how many; two must agree.
    """

    def __init__(self, count: int = 3) -> None:
        self.primary = TestServer("--repl-diskless-sync-delay", "0", tcp=True)
        self.replica = TestServer(
            "--replicaof", "127.0.0.1", str(self.primary.port), "--repl-diskless-sync-delay", "0", tcp=True
        )
        self.folder = Path(tempfile.mkdtemp(prefix="rf-"))
        self.ports = [free_port() for _ in range(count)]
        for port in self.ports:
            self._configure(port)
        self.processes = [self._start(port) for port in self.ports]
        until(lambda: all(self._is_ready(port, count) for port in self.ports), 30)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def ask(self, port: int, *words: Any) -> Any:
        with contextlib.closing(redis_sync.Redis(host="127.0.0.1", port=port)) as client:
            return client.execute_command(*words)

    def stop(self, *numbers: int) -> None:
        """SIGKILL of some of them."""
        for number in numbers:
            self.processes[number].kill()
            self.processes[number].wait()

    def start(self, number: int) -> None:
        """One that was stopped, once it knows what it knew."""
        self.processes[number] = self._start(self.ports[number])
        until(lambda: self._is_ready(self.ports[number], len(self.ports)), 30)

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.wait()
        self.primary.close()
        self.replica.close()
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()

    def _configure(self, port: int) -> None:
        (self.folder / f"{port}.conf").write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 10000\n"
        )

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        """A sentinel writes what it learns into its configuration, so it knows that when it starts again."""
        with (self.folder / f"{port}.log").open("ab") as log:
            command = [server_binary(), str(self.folder / f"{port}.conf"), "--sentinel"]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _is_ready(self, port: int, count: int) -> bool:
        """It knows the replica and the other sentinels."""
        try:
            (state,) = self.ask(port, "SENTINEL MASTERS").values()
        except (redis_sync.RedisError, ValueError):
            return False
        return int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == count - 1
