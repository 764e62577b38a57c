"""Threads for what would block the loop."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Threads:
    """Daemon threads for plain functions, reused: a stuck one never holds up the end of the process."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, call: Callable[[], None]) -> None:
        """Run `call()` in a thread, at once."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            else:
                self._count += 1
                threading.Thread(target=self._run, name=f"redisflow-step-{self._count}", daemon=True).start()
        self._work.put(call)

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._count):
            self._work.put(None)

    def _run(self) -> None:
        while (call := self._work.get()) is not None:
            call()
            with self._lock:
                self._idle += 1
