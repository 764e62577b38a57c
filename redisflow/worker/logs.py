"""What a step prints and logs, on its way to the run's history as LogEntry events.

Lines gather for half a second or a hundred lines, and the rest goes before the step's outcome. A step that writes nothing has no
`StepLog` and pays nothing; one that writes too much is capped, and a note says how many lines were dropped. Times are those of the
server's clock: the lease, which is the server's time of the claim, and what has passed since.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import Context as Variables
from typing import Any

from redisflow.backend.redis.recording import Note
from redisflow.backend.replies import Reply
from redisflow.codec import pack
from redisflow.model.errors import RedisflowError
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")
FLUSH_AFTER = 0.5  # seconds
FLUSH_LINES = 100
WINDOW_US = 10_000_000
WINDOW_LINES = 1_000
WINDOW_BYTES = 262_144
MAX_LINE = 16_384  # characters
MOST_WAITING = 2_000  # lines kept while the server does not take them

Send = Callable[[list[Note]], Awaitable[Reply]]


class StepLog:
    """The lines of one execution.

    Args:
        job: the execution.
        loop: sends them.
        send: records events.
    """

    def __init__(self, job: Job, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self._attempt = job.attempt
        self._lease = job.lease
        self._origin = job.started
        self._loop = loop
        self._send = send
        self._lock = threading.Lock()
        self._partial: dict[str, str] = {}
        self._notes: list[Note] = []
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._closed = False
        self._window = 0
        self._lines = 0
        self._bytes = 0
        self._dropped = 0

    def write(self, stream: str, text: str) -> None:
        """Take text as it is written, lines in pieces or many at once; safe from any thread.

        Args:
            stream: `stdout` or `stderr`.
            text: what was written.
        """
        with self._lock:
            if self._closed:
                return
            *lines, rest = (self._partial.get(stream, "") + text).split("\n")
            self._partial[stream] = rest[: MAX_LINE + 1]  # what follows would be cut anyway
            for line in lines:
                self._take(stream, line)
            self._plan_flush()

    async def close(self) -> None:
        """Send what is left; what comes later is not taken."""
        with self._lock:
            for stream, rest in self._partial.items():
                if rest:
                    self._take(stream, rest)
            self._partial.clear()
            self._note_dropped(self._now())
            self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        await self._flush()

    def _now(self) -> int:
        return self._lease + int((time.perf_counter() - self._origin) * 1e6)

    def _take(self, stream: str, line: str) -> None:
        now = self._now()
        if now - self._window >= WINDOW_US:
            self._note_dropped(now)
            self._window, self._lines, self._bytes = now, 0, 0
        line = line.rstrip("\r")
        size = len(line) if line.isascii() else len(line.encode("utf-8", "replace"))
        full = self._lines >= WINDOW_LINES or self._bytes + min(size, MAX_LINE) > WINDOW_BYTES
        if full or len(self._notes) >= MOST_WAITING:
            self._dropped += 1
            return
        self._lines += 1
        self._bytes += min(size, MAX_LINE)
        self._add(now, stream, line if len(line) <= MAX_LINE else line[:MAX_LINE] + " … cut")

    def _note_dropped(self, now: int) -> None:
        if self._dropped:
            self._add(now, "stderr", f"… {self._dropped} lines dropped: at most {WINDOW_LINES} lines or "
                      f"{WINDOW_BYTES >> 10} KiB are kept in {WINDOW_US // 1_000_000} s")  # fmt: skip
            self._dropped = 0

    def _add(self, now: int, stream: str, line: str) -> None:
        shown = line.encode("utf-8", "backslashreplace").decode()
        self._notes.append(("LogEntry", pack({"a": self._attempt, "st": stream, "m": shown, "ts": now}), ""))

    def _plan_flush(self) -> None:
        """One call into the loop a batch, whatever the thread: a second one only when the batch is full."""
        if self._notes and (not self._scheduled or len(self._notes) == FLUSH_LINES):
            self._scheduled = True
            try:
                self._loop.call_soon_threadsafe(self._on_lines, context=Variables())
            except RuntimeError:
                self._closed = True  # the worker has ended

    def _on_lines(self) -> None:
        if self._closed or self._flushing is not None:
            return
        if len(self._notes) >= FLUSH_LINES:
            self._begin_flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(FLUSH_AFTER, self._begin_flush, context=Variables())

    def _begin_flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flushing is None and not self._closed:
            # in variables of its own, so that what sending logs is not taken for the step's
            self._flushing = self._loop.create_task(self._flush(), context=Variables())
            self._flushing.add_done_callback(self._flushed, context=Variables())

    def _flushed(self, task: asyncio.Task[Any]) -> None:
        self._flushing = None
        with self._lock:
            self._scheduled = False
            if not self._closed:
                self._plan_flush()

    async def _flush(self) -> None:
        with self._lock:
            notes, self._notes = self._notes, []
        if not notes:
            return
        try:
            reply = await self._send(notes)
        except RedisflowError as error:
            log.warning("%d log lines of a step could not be recorded: %s", len(notes), error)
        except Exception:
            log.exception("%d log lines of a step could not be recorded", len(notes))
        else:
            if reply is not Reply.OK:
                log.debug("%d log lines came too late: %s", len(notes), reply.name)
