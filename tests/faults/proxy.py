"""A proxy between a client and a Redis server that loses what a network loses.

A rule looks at each piece that a client sends and says what becomes of it: `PASS`, `CUT` (the connection
breaks before the server sees it), `DROP` (the server acts on it, and the connection breaks before the answer
arrives), `WAIT` (it goes on when `gate` is set), `SWALLOW` (it never arrives, nor does what follows it, and the connection
stays open). Besides, answers can be held back or swallowed, and every connection can be cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Self

PASS, CUT, DROP, WAIT, SWALLOW = "pass", "cut", "drop", "wait", "swallow"
Rule = Callable[[bytes], str]


class Proxy:
    """Listens on a unix socket of its own, and connects to the server's for each connection."""

    def __init__(self, target: Path, path: Path) -> None:
        self.target = target
        self.path = path
        self.rule: Rule = lambda _: PASS
        self.dropped = 0
        self.mute = False  # answers are swallowed, and all that follow on that connection
        self.gate = asyncio.Event()
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        self._open.set()
        self.gate.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.path.unlink(missing_ok=True)

    async def listen(self) -> None:
        """Accept connections."""
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accept, str(self.path), limit=2**20)

    async def refuse(self) -> None:
        """Accept no more connections, and cut those that there are."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def hold(self) -> None:
        """Keep answers back from now on."""
        self._open.clear()

    def let_go(self) -> None:
        """Give out what was held back, and all that follows."""
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(str(self.target), limit=2**20)
        except OSError:
            writer.transport.abort()
        else:
            self._writers.add(server_writer)
            lost = asyncio.Event()  # the next answer on this connection is not delivered
            await asyncio.gather(
                self._requests(reader, writer, server_writer, lost),
                self._answers(server_reader, writer, server_writer, lost),
            )
            self._writers.discard(server_writer)
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        lost: asyncio.Event,
    ) -> None:
        deaf = False
        try:
            while data := await reader.read(2**20):
                verdict = self.rule(data)
                deaf = deaf or verdict == SWALLOW
                if deaf:
                    self.dropped += 1
                    continue
                if verdict == CUT:
                    self.dropped += 1
                    break
                if verdict == WAIT:
                    await self.gate.wait()
                if verdict == DROP:
                    lost.set()
                server.write(data)
                await server.drain()
        except OSError:
            pass
        finally:
            server.close()
            if not lost.is_set():
                client.close()

    async def _answers(
        self,
        reader: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        server: asyncio.StreamWriter,
        lost: asyncio.Event,
    ) -> None:
        mute = False
        try:
            while data := await reader.read(2**20):
                mute = mute or self.mute
                if mute:
                    self.dropped += 1
                    continue
                await self._open.wait()
                if lost.is_set():
                    self.dropped += 1
                    break
                client.write(data)
                await client.drain()
        except OSError:
            pass
        finally:
            client.transport.abort()
            server.transport.abort()


class Nth:
    """A rule: every n-th piece that carries one of these marks gets the verdict, at most `times` times."""

    def __init__(self, marks: list[str], verdict: str, *, every: int = 1, times: int | None = None) -> None:
        self.marks = [mark.encode() for mark in marks]
        self.verdict = verdict
        self.every = every
        self.left = times
        self.seen = 0

    def __call__(self, data: bytes) -> str:
        if not any(mark in data for mark in self.marks):
            return PASS
        self.seen += 1
        if self.seen % self.every or self.left == 0:
            return PASS
        if self.left is not None:
            self.left -= 1
        return self.verdict
