"""Heartbeats, from a thread a partition with its own connection: no blocked loop, full pool or silent node stops them.

One call a partition lists (run, step, lease) of all that runs here; the answer names those whose lease is gone or whose run has
ended, and the worker stops their bodies. A call has one interval to be answered and is not repeated: the next beat is the repeat,
and comes sooner after one that was not delivered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from redisflow.backend.beats import BeatLine
from redisflow.backend.replies import Reply
from redisflow.worker.context import Job

SOONER = 1.0  # seconds to the next beat after one that was not delivered


class Heartbeat:
    """The threads.

    Args:
        lines: one a partition.
        jobs: gives all jobs whose leases are to be renewed; called from the threads.
        info: gives what the worker says of itself, JSON.
        interval_us: µs between beats.
        lost: called from a thread with each job whose lease is gone, and why.
        undelivered: called from a thread after a beat that was not answered.
    """

    def __init__(
        self, lines: list[BeatLine], *, jobs: Callable[[], list[Job]], info: Callable[[], str], interval_us: int,
        lost: Callable[[Job, Reply], None], undelivered: Callable[[], None],
    ) -> None:  # fmt: skip
        self._lines = lines
        self._jobs = jobs
        self._info = info
        self._interval = interval_us / 1e6
        self._lost = lost
        self._undelivered = undelivered
        self._stop = threading.Event()
        self._beaten_at = [time.monotonic()] * len(lines)
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name="redisflow-heartbeat", daemon=True)
            for index in range(len(lines))
        ]

    @property
    def beaten_at(self) -> float:
        """When each partition had answered (`time.monotonic`): the time of the one that did so longest ago."""
        return min(self._beaten_at)

    def start(self) -> None:
        """Begin; the first beat goes at once and makes the worker known."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads and close their connections."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=self._interval + 2)

    def _run(self, partition: int) -> None:
        while True:
            delivered = self.beat(partition)
            if self._stop.wait(self._interval if delivered else min(SOONER, self._interval)):
                break
        self._lines[partition].leave()
        self._lines[partition].close()

    def beat(self, partition: int) -> bool:
        """One beat to a partition; whether it was delivered."""
        jobs = [job for job in self._jobs() if job.partition == partition]
        codes = self._lines[partition].beat(self._info(), [part for job in jobs for part in job.key])
        if codes is None:
            self._undelivered()
            return False
        self._beaten_at[partition] = time.monotonic()
        for job, code in zip(jobs, codes, strict=True):
            if code != Reply.OK:
                self._lost(job, Reply(code))
        return True
