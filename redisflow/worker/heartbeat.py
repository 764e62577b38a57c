"""Heartbeats, from a thread of their own with its own connection: neither a blocked loop nor a full pool stops them.

One call a partition lists (run, step, lease) of all that runs here; the answer names those whose lease is gone or whose run has
ended, and the worker stops their bodies. A call has one interval to be answered and is not repeated: the next beat is the repeat.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from redisflow.backend.beats import BeatLine, beat_all
from redisflow.backend.replies import Reply
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")


class Heartbeat:
    """The thread.

    Args:
        lines: one a partition.
        jobs: gives all jobs whose leases are to be renewed; called from the thread.
        info: gives what the worker says of itself, JSON.
        interval_us: µs between beats.
        lost: called from the thread with each job whose lease is gone, and why.
    """

    def __init__(
        self, lines: list[BeatLine], *, jobs: Callable[[], list[Job]], info: Callable[[], str], interval_us: int,
        lost: Callable[[Job, Reply], None],
    ) -> None:  # fmt: skip
        self._lines = lines
        self._jobs = jobs
        self._info = info
        self._interval = interval_us / 1e6
        self._lost = lost
        self._stop = threading.Event()
        self.beaten_at = time.monotonic()  # when all partitions answered last
        self._thread = threading.Thread(target=self._run, name="redisflow-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; the first beat goes at once and makes the worker known."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close its connections."""
        self._stop.set()
        self._thread.join(timeout=self._interval + 2)

    def _run(self) -> None:
        while True:
            self.beat()
            if self._stop.wait(self._interval):
                break
        for line in self._lines:
            line.close()

    def beat(self) -> None:
        """One beat over all partitions."""
        groups: list[list[Job]] = [[] for _ in self._lines]
        for job in self._jobs():
            groups[job.partition].append(job)
        leases: list[list[Any]] = [[part for job in group for part in job.key] for group in groups]
        answers = beat_all(self._lines, self._info(), leases)
        if all(codes is not None for codes in answers):
            self.beaten_at = time.monotonic()
        for group, codes in zip(groups, answers, strict=True):
            if codes is None:
                continue
            for job, code in zip(group, codes, strict=True):
                if code != Reply.OK:
                    self._lost(job, Reply(code))
