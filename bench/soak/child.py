"""A process of a soak, that can be killed, frozen and started again."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


class Child:
    """A process that is started again after it died.

    Args:
        name: in the log of faults.
        command: program and arguments.
        log: gets what it prints.
        environment: its variables; None: those of this process.
    """

    def __init__(
        self, name: str, command: list[str], log: IO[bytes] | int, environment: dict[str, str] | None = None
    ) -> None:
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

    def heal(self) -> None:
        """It runs."""
        if self.process.poll() is None:
            self.thaw()
        self.start()

    def end(self) -> None:
        """SIGKILL, for good."""
        if self.process.poll() is None:
            self.thaw()
            self.kill()
