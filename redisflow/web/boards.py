"""Parts of pages that are kept live: each is rendered once for all who look at it, and sent where it has changed.

A board is named by a key (a page and its query) and lives while somebody watches it. Its render function reads what it needs;
between two renders it waits, for a fixed time or until something has happened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from redisflow.model.errors import RedisflowError

Render = Callable[[], Awaitable[str]]
Pause = Callable[[], Awaitable[None]]


class _Board:
    def __init__(self) -> None:
        self.html: str | None = None
        self.number = 0
        self.watchers = 0
        self.news = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None
        self.ended = False

    async def keep(self, render: Render, pause: Pause) -> None:
        try:
            while not self.ended:
                with contextlib.suppress(
                    RedisflowError
                ):  # the server is away, or the run is gone: the last state stands
                    html = await render()
                    if html != self.html:
                        await self.publish(html)
                await pause()
        finally:
            self.ended = True
            async with self.news:
                self.news.notify_all()

    async def publish(self, html: str) -> None:
        async with self.news:
            self.html, self.number = html, self.number + 1
            self.news.notify_all()


class Boards:
    """All boards of a process."""

    def __init__(self) -> None:
        self._boards: dict[str, _Board] = {}
        self.closed = False

    async def watch(self, key: str, render: Render, pause: Pause) -> AsyncIterator[str]:
        """The rendered part now, and again whenever it has changed; of several at once the newest."""
        board = self._boards.get(key)
        if board is None:
            board = self._boards[key] = _Board()
            board.task = asyncio.create_task(board.keep(render, pause))
        board.watchers += 1
        seen = 0
        try:
            while not (self.closed or board.ended):
                async with board.news:
                    await board.news.wait_for(lambda: board.number > seen or self.closed or board.ended)  # noqa: B023
                    html, seen = board.html, board.number
                if html is not None and not self.closed:
                    yield html
        finally:
            board.watchers -= 1
            if not board.watchers:
                if self._boards.get(key) is board:
                    del self._boards[key]
                await _end(board)

    async def close(self) -> None:
        """End every board, so that a server can stop."""
        self.closed = True
        for board in list(self._boards.values()):
            async with board.news:
                board.news.notify_all()
            await _end(board)


async def _end(board: _Board) -> None:
    board.ended = True
    task, board.task = board.task, None
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def every(seconds: float) -> Pause:
    """A pause of a fixed time."""

    async def pause() -> None:
        await asyncio.sleep(seconds)

    return pause
