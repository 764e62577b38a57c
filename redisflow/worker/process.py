"""One process of an isolated step, seen from the worker: started, listened to, killed, reaped.

A thread starts it and waits for it, so that `wait4` can say what it used; asyncio's own subprocesses are reaped elsewhere. The
process leads a session of its own: a kill goes to its whole group, as long as it is not reaped and its id can be nobody else's.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from resource import struct_rusage
from typing import Any

from redisflow.model.errors import TransitionRefused
from redisflow.worker.capture import passthrough
from redisflow.worker.checkpoints import Store
from redisflow.worker.threads import Threads

LINE_LIMIT = 256 * 1_048_576  # bytes of a line on the socket: far above what a payload may have
GRACE = 5.0  # seconds that a process has to exit once it has said how it ended
LAST_WORDS = 1.0  # seconds to read what a process that has ended left in its pipes


class Child:
    """One process, from its start to its reaping.

    Args:
        threads: one of them waits for it.
        write: takes the name of a stream and what was written to it.
        store: answers its checkpoints.
    """

    def __init__(self, threads: Threads, write: Callable[[str, str], None], store: Store) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = threads
        self._write = write
        self._store = store
        self._lock = threading.Lock()
        self._pid = 0
        self._started = self._doomed = False
        self._held = contextlib.ExitStack()
        self._rusage: struct_rusage | None = None
        self._reaped: asyncio.Future[None] = self._loop.create_future()
        self._said: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._outputs: list[_Output] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None
        self.status = 0

    async def run(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Start it, hand over its order, wait for its end.

        Returns:
            What it said of its end; None where it ended without a word.
        """
        reader = await self._launch()
        assert self._writer is not None
        self._writer.write(json.dumps(order).encode() + b"\n")
        listening = self._spawn(self._listen(reader))
        first: list[asyncio.Future[Any]] = [self._said, self._reaped]
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not self._reaped.done():
            await asyncio.wait([self._reaped], timeout=GRACE)
            self.kill()
        await asyncio.shield(self._reaped)
        unread: list[asyncio.Future[None]] = [listening, *(output.ended for output in self._outputs)]
        await asyncio.wait(unread, timeout=LAST_WORDS)
        return self._said.result() if self._said.done() else None

    async def _launch(self) -> asyncio.StreamReader:
        mine, theirs = socket.socketpair()
        self._held.callback(mine.close)
        ends = []
        for name in ("stdout", "stderr"):
            ours, end = os.pipe()
            pipe = os.fdopen(ours, "rb", buffering=0)
            self._held.callback(pipe.close)
            self._outputs.append(_Output(self._loop, name, self._write, pipe))
            ends.append(end)
        self._threads.submit(lambda: self._live(theirs, ends))
        self._started = True
        for output in self._outputs:
            await output.connect()
        reader, self._writer = await asyncio.open_connection(sock=mine, limit=LINE_LIMIT)
        return reader

    def kill(self) -> None:
        """SIGKILL to it and to all that it started in its session; at once, and any number of times."""
        with self._lock:
            self._doomed = True
            self._kill_group()

    async def close(self) -> None:
        """Wait for its end and release what it held here; only after `kill`."""
        if self._started:
            await self._reaped
        for task in self._tasks:
            task.cancel()
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        for output in self._outputs:
            await output.close()
        self._held.close()

    def usage(self, end: dict[str, Any] | None) -> dict[str, int] | None:
        """What it used, by the names of ResourceUsage; None before its end."""
        used = self._rusage
        if used is None:
            return None
        peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        told = (end or {}).get("peak") or peak  # Linux counts what this process held at the fork as the child's own
        user, system = int(used.ru_utime * 1e6), int(used.ru_stime * 1e6)
        return {
            "peakMemoryBytes": min(peak, told), "cpuTimeUserUs": user, "cpuTimeSystemUs": system,
            "cpuTimeTotalUs": user + system, "voluntaryContextSwitches": used.ru_nvcsw,
            "involuntaryContextSwitches": used.ru_nivcsw,
        }  # fmt: skip

    def _live(self, channel: socket.socket, ends: list[int]) -> None:
        """In a thread: start the process, wait for it, reap it."""
        try:
            try:
                process = self._start(channel.fileno(), ends)
            finally:
                channel.close()
                for end in ends:
                    os.close(end)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._kill_group()  # what it left behind; its id cannot be another's before it is reaped
                _, status, self._rusage = os.wait4(process.pid, 0)
                self._pid = 0
            self.status = process.returncode = os.waitstatus_to_exitcode(status)
            error = None
        except OSError as trouble:
            error = trouble
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever would want to know
            self._loop.call_soon_threadsafe(self._on_end, error)

    def _start(self, channel: int, ends: list[int]) -> subprocess.Popen[bytes]:
        home = str(Path(__file__).parents[2])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and arguments of our own
            [sys.executable, "-u", "-m", "redisflow.worker.child", str(channel)], stdin=subprocess.DEVNULL, stdout=ends[0],
            stderr=ends[1], pass_fds=(channel,), start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        with self._lock:
            self._pid = process.pid
            if self._doomed:
                self._kill_group()
        return process

    def _kill_group(self) -> None:
        if self._pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)

    def _on_end(self, error: OSError | None) -> None:
        if error is not None and not self._said.done():
            shown = {"name": type(error).__name__, "message": f"the step's process could not be run: {error}"}
            self._said.set_result({"end": "failed", "error": shown, "fatal": False, "retry_after_us": None})
        if not self._reaped.done():
            self._reaped.set_result(None)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                said = json.loads(line)
                if "call" in said:
                    self._spawn(self._answer(said))
                elif not self._said.done():
                    self._said.set_result(said)

    async def _answer(self, asked: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"id": asked["id"]}
        try:
            if asked["call"] == "load":
                answer["value"] = [[*key, text] for key, text in (await self._store.load()).items()]
            else:
                await (self._store.save if asked["call"] == "save" else self._store.save_failure)(*asked["args"])
                answer["value"] = None
        except TransitionRefused as error:
            answer["refused"] = str(error)
        except Exception as error:  # noqa: BLE001 - it is raised in the child
            answer["error"] = f"{type(error).__name__}: {error}"
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(answer).encode() + b"\n")


class _Output(asyncio.Protocol):
    """Reads what the process writes to one of its streams."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, name: str, write: Callable[[str, str], None], pipe: Any
    ) -> None:
        self._loop = loop
        self._name = name
        self._write = write
        self._pipe = pipe
        self._decode = codecs.getincrementaldecoder("utf-8")("backslashreplace").decode
        self._transport: asyncio.BaseTransport | None = None
        self.ended: asyncio.Future[None] = loop.create_future()

    async def connect(self) -> None:
        """Begin to read."""
        self._transport, _ = await self._loop.connect_read_pipe(lambda: self, self._pipe)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        text = self._decode(data)
        self._write(self._name, text)
        passthrough(self._name, text)

    def connection_lost(self, error: Exception | None) -> None:
        """Of asyncio."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def close(self) -> None:
        """Stop reading."""
        if self._transport is not None:
            self._transport.close()
            await self.ended
