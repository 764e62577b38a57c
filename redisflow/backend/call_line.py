"""Script calls of a process to a standalone server: one connection, any number of calls under way.

The general client takes a connection of its own for each call that is under way, and 0.15 ms of locks and parsing for each. Here
calls share a `Channel`. Cancelling a call only leaves its reply unread; a line that breaks fails what was under way, and the next
call opens it anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

from redisflow.backend.channel import Channel, open_channel
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

    async def call(self, *words: Any) -> Any:
        """The reply to a command.

        Raises:
            OSError: the line could not be opened, broke, or gave no answer in time.
            RedisError: what the server answered.
        """
        channel = self._channel
        if channel is None or channel.closed:
            async with self._opening:
                if self._channel is None or self._channel.closed:
                    self._channel = await open_channel(self._address, _ignore)
                channel = self._channel
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                return await channel.call(*words)
        except TimeoutError:
            channel.close()  # replies come in order, so none of them will come
            raise

    def close(self) -> None:
        """Close at once."""
        if self._channel is not None:
            self._channel.close()


def _ignore(_: Exception | None) -> None:
    """The next call sees that the channel is closed."""
