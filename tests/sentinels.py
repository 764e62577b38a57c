"""A primary, its replica and three sentinels, real processes on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import redis as redis_sync

from tests.conftest import TestServer, free_port, port_options, server_binary, until

SERVICE = "mymaster"
SECURE = f"""\
user default off
user watcher on >s3ntinel &* +@all
sentinel sentinel-user watcher
sentinel sentinel-pass s3ntinel
sentinel auth-pass {SERVICE} s3rver
"""


def _lines(options: list[str]) -> str:
    """Options of a command line as lines of a configuration file."""
    return "".join(f"{name[2:]} {value}\n" for name, value in zip(options[::2], options[1::2], strict=True))


class Sentinels:
    """Sentinels that fail over one second after the primary fell silent.

    Args:
        count: how many; two must agree.
        secure: files of `make_certificates`: all ports speak TLS alone, sentinels let in the user `watcher` with the password
            `s3ntinel`, servers ask for the password `s3rver`.
        binary: the server program; default: that of all tests.
    """

    def __init__(self, count: int = 3, *, secure: dict[str, Path] | None = None, binary: str | None = None) -> None:
        self.secure = secure
        self.binary = binary or server_binary()
        options: dict[str, Any] = {
            "tcp": True,
            "tls": secure,
            "password": "s3rver" if secure else None,
            "binary": binary,
        }
        self.primary = TestServer("--repl-diskless-sync-delay", "0", **options)
        following = ("--replicaof", "127.0.0.1", str(self.primary.port))
        self.replica = TestServer(*following, "--repl-diskless-sync-delay", "0", **options)
        self.folder = Path(tempfile.mkdtemp(prefix="rf-"))
        self.ports = [free_port() for _ in range(count)]
        for port in self.ports:
            self._configure(port)
        self.processes = [self._start(port) for port in self.ports]
        until(lambda: all(self._is_ready(port, count) for port in self.ports), 30)

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        if self.secure:
            login = "sentinel_username=watcher&sentinel_password=s3ntinel"
            return f"rediss+sentinel://:s3rver@{hosts}/{SERVICE}/0?{login}&ssl_ca_certs={self.secure['ca']}"
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def ask(self, port: int, *words: Any) -> Any:
        given: dict[str, Any] = {}
        if self.secure:
            given = {"ssl": True, "ssl_ca_certs": self.secure["ca"], "username": "watcher", "password": "s3ntinel"}
        with contextlib.closing(redis_sync.Redis(host="127.0.0.1", port=port, **given)) as client:
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
            _lines(port_options(port, self.secure)) + f"bind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.primary.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 10000\n"
            + (SECURE if self.secure else "")
        )

    def _start(self, port: int) -> subprocess.Popen[bytes]:
        """A sentinel writes what it learns into its configuration, so it knows that when it starts again."""
        with (self.folder / f"{port}.log").open("ab") as log:
            command = [self.binary, str(self.folder / f"{port}.conf"), "--sentinel"]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _is_ready(self, port: int, count: int) -> bool:
        """It knows the replica and the other sentinels."""
        try:
            (state,) = self.ask(port, "SENTINEL MASTERS").values()
        except (redis_sync.RedisError, ValueError):
            return False
        return int(state["num-slaves"]) == 1 and int(state["num-other-sentinels"]) == count - 1
