"""Child processes of a command: the workers and the reclaimer that `dev` and `demo` start.

Each is in a process group of its own, so that Ctrl-C in the terminal reaches the command alone, and the
command ends its children once and in order. Each holds the read end of a pipe whose other end dies with the
command, and ends itself when it does: nothing is left behind by SIGKILL either.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

PATIENCE = 10.0  # seconds for a child to drain before it is killed


class Child:
    """A running `python -m redisflow …` of ours, ended by its own handle.

    Args:
        process: the process.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls, arguments: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Self:
        """Start a child with the environment of this process and `env` on top; `log` takes its stderr."""
        file = await asyncio.to_thread(log.open, "ab") if log else None
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "redisflow", *arguments, "--leash", stdin=subprocess.PIPE, stdout=file,
                stderr=file, env={**os.environ, **(env or {})}, process_group=0,
            )  # fmt: skip
        finally:
            if file is not None:
                file.close()
        return cls(process)

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Its exit code, once it has ended."""
        return await self._process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash of the machine would."""
        if self.alive:
            self._process.kill()

    async def stop(self, patience: float = PATIENCE) -> None:
        """Let it drain, then kill it; the process is gone when this returns."""
        try:
            if self.alive:
                self._process.terminate()
                async with asyncio.timeout(patience):
                    await self._process.wait()
        except (TimeoutError, ProcessLookupError):
            pass
        finally:
            self.kill()
            await self._process.wait()


async def stop_all(children: Sequence[Child], patience: float = PATIENCE) -> None:
    """Stop children side by side."""
    await asyncio.gather(*(child.stop(patience) for child in children))
