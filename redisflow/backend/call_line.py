"""Script calls of a process to a standalone server: one connection, any number of calls under way.

The general client takes a connection of its own for each call that is under way, and 0.15 ms of locks and parsing for each. Here
calls share a `Channel`. Cancelling a call only leaves its reply unread; a line that breaks fails what was under way, and the next
call opens it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from redisflow.backend.channel import Awaited, Channel, open_channel
from redisflow.backend.location import Address

ANSWER_WITHIN = 30.0  # seconds


class CallLine:
    """The line to one server.

    Args:
        address: of the server.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._channel: Channel | None = None
        self._opening = asyncio.Lock()
        self._watch: asyncio.TimerHandle | None = None

    def call(self, *words: Any) -> Awaitable[Any]:
        """Send a command, at once where the line is open; what it gives is awaited for the reply.

        Raises:
            OSError: the line could not be opened, broke, or gave no answer in time.
            RedisError: what the server answered.
        """
        channel = self._channel
        if channel is None or channel.closed:
            return self._open_and_call(words)
        reply = channel.call(*words)
        if self._watch is None:  # one for all: a timer a call is a tenth of what a lone call costs
            self._watch_for_silence(channel)
        return reply

    async def _open_and_call(self, words: tuple[Any, ...]) -> Any:
        async with self._opening:
            if self._channel is None or self._channel.closed:
                self._channel = await open_channel(self._address, _ignore)
        return await self.call(*words)

    def _watch_for_silence(self, channel: Channel) -> None:
        self._watch = asyncio.get_running_loop().call_later(ANSWER_WITHIN, self._look, channel, channel.oldest)

    def _look(self, channel: Channel, oldest: Awaited | None) -> None:
        self._watch = None
        if oldest is not None and channel.oldest is oldest:  # replies come in order, so none of them will come
            channel.close(TimeoutError(f"no answer for {ANSWER_WITHIN:.0f} s"))
        elif self._channel is not None and self._channel.oldest is not None:
            self._watch_for_silence(self._channel)

    def close(self) -> None:
        """Close at once."""
        if self._watch is not None:
            self._watch.cancel()
        if self._channel is not None:
            self._channel.close()


def _ignore(_: Exception | None) -> None:
    """The next call sees that the channel is closed."""
