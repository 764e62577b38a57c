"""A connection that another task closes while a call is about to write to it is a broken connection, whoever tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Connection
from redis.exceptions import ConnectionError as Broken

from redisflow.backend.patience import heeding_cancel, is_passing


async def test_of_the_client_library() -> None:
    connection = Connection()  # without its stream, as one that was closed is

    async def send() -> None:
        connection._writer.writelines([b"PING\r\n"])

    with pytest.raises(Broken, match="the connection was closed"):
        await heeding_cancel(send)


@pytest.mark.parametrize("gone", [False, True], ids=["closing", "closed"])
async def test_of_asyncio(gone: bool) -> None:
    """Python 3.12 and 3.13 tell of it by a TypeError."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.close()
    if gone:
        await writer.wait_closed()

    async def send() -> None:
        writer.writelines([b"PING\r\n"])
        await writer.drain()

    with pytest.raises((Broken, OSError)) as caught:
        await heeding_cancel(send)
    assert is_passing(caught.value)
    server.close()


@pytest.mark.parametrize("mistake", [lambda: int([]), lambda: [].writelines([])], ids=["type", "attribute"])  # type: ignore
async def test_a_mistake_of_the_caller_stays_one(mistake: Callable[[], object]) -> None:
    async def call() -> None:
        mistake()

    with pytest.raises((TypeError, AttributeError)):
        await heeding_cancel(call)
