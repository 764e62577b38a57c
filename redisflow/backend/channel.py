"""The worker's own connection: pipelined FCALLs over an asyncio protocol with hiredis, answered by callbacks.

A worker's turns are the hot path of redisflow. The general client costs about 30 µs a call in locks, tasks and parsing of
replies; this protocol a few. It knows nothing of retries: when the connection breaks, `on_lost` is called once, all answers that
were awaited are lost, and the owner opens a new one and repeats.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import hiredis
from redis._parsers.base import BaseParser
from redis.exceptions import RedisError

from redisflow.backend.location import Address

Answer = Callable[[Any], None]
Awaited = Answer | asyncio.Future[Any]


def pack_command(*words: Any) -> bytes:
    """A command as the protocol wants it; words are text, bytes or numbers."""
    packed: bytes = hiredis.pack_command(words)
    return packed


class Channel(asyncio.Protocol):
    """One connection; use `open_channel`.

    Args:
        on_lost: called once when the connection is gone.
    """

    def __init__(self, on_lost: Callable[[Exception | None], None]) -> None:
        self.on_push: Answer | None = None
        self._reader = hiredis.Reader()
        self._waiting: deque[Awaited] = deque()
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._why: Exception | None = None  # closed by us
        self.closed = False

    @property
    def oldest(self) -> Awaited | None:
        """What is next to be answered; None where nothing is awaited."""
        return self._waiting[0] if self._waiting else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by asyncio)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse replies and give each to its callback or future, in the order of the calls (called by asyncio)."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        while True:
            reply = reader.gets()
            if reply is False:
                return
            if waiting:
                answer = waiting.popleft()
                if isinstance(answer, asyncio.Future):
                    _resolve(answer, reply)
                else:
                    answer(reply)
            elif self.on_push:
                self.on_push(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner (called by asyncio)."""
        self.closed = True
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if isinstance(answer, asyncio.Future) and not answer.done():
                answer.set_exception(exc or self._why or ConnectionError("the connection was lost"))
        on_lost, self._on_lost = self._on_lost, lambda _: None
        on_lost(exc)

    def send(self, packed: bytes, answer: Awaited) -> None:
        """Send a packed command; a callback gets the reply, which may be a `hiredis.ReplyError`."""
        if not self.on_push:
            self._waiting.append(answer)
        if self._transport is not None:
            self._transport.write(packed)

    def call(self, *args: Any) -> asyncio.Future[Any]:
        """Send a command; the future gets its reply, or raises the RedisError that the server answered."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.send(pack_command(*args), future)
        return future

    def close(self, why: Exception | None = None) -> None:
        """Close at once; `on_lost` is not called, and the calls under way raise `why`."""
        self._on_lost = lambda _: None
        self.closed, self._why = True, why
        if self._transport is not None:
            self._transport.abort()


def _resolve(future: asyncio.Future[Any], reply: Any) -> None:
    if future.done():  # cancelled
        return
    if isinstance(reply, hiredis.ReplyError):
        future.set_exception(BaseParser.parse_error(str(reply)))  # type: ignore[no-untyped-call]
    else:
        future.set_result(reply)


async def open_channel(
    address: Address,
    on_lost: Callable[[Exception | None], None],
    *,
    on_push: Answer | None = None,
    timeout: float = 5.0,
) -> Channel:
    """Connect, log in and choose the database.

    Args:
        address: where, and as whom.
        on_lost: called once when the connection is gone.
        on_push: makes it a connection for subscriptions, whose every reply goes there.
        timeout: seconds for all of it.

    Raises:
        OSError: the server cannot be reached, or refused the login.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        if address.path:
            _, channel = await loop.create_unix_connection(lambda: Channel(on_lost), address.path)
        else:
            _, channel = await loop.create_connection(
                lambda: Channel(on_lost), address.host, address.port, ssl=address.ssl or None
            )
        try:
            if address.password:
                login = [address.username, address.password] if address.username else [address.password]
                await channel.call("AUTH", *login)
            if address.db:
                await channel.call("SELECT", str(address.db))
        except RedisError as error:
            channel.close()
            raise ConnectionError(f"{getattr(error, 'status_code', None) or ''} {error}".strip()) from error
        except BaseException:
            channel.close()
            raise
    channel.on_push = on_push
    return channel
