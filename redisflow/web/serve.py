"""The application on a port: uvicorn, started and ended by a block."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn

from redisflow.client import Client
from redisflow.model.errors import UsageError
from redisflow.web.app import close_tails, create_app
from redisflow.web.desk import Desk
from redisflow.web.options import WebOptions

GRACE = 5
"""Seconds that requests get to end."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, desk: Desk) -> None:
        super().__init__(config)
        self._desk = desk

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the command's."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams first, which never end by themselves."""
        await close_tails(self._desk)
        await super().shutdown(sockets)


class Running:
    """A dashboard that serves; `url` is where."""

    def __init__(self, server: uvicorn.Server, task: asyncio.Task[None], url: str) -> None:
        self._server = server
        self._task = task
        self.url = url

    def stop(self) -> None:
        """End soon."""
        self._server.should_exit = True

    async def wait(self) -> None:
        """Until it has ended."""
        await asyncio.shield(self._task)


@asynccontextmanager
async def running(client: Client, options: WebOptions, host: str, port: int) -> AsyncIterator[Running]:
    """A dashboard over an open client, ended with the block.

    Args:
        client: open.
        options: see `WebOptions`.
        host: address.
        port: 0 for a free one.

    Raises:
        UsageError: the address cannot be had.
    """
    app = create_app(client, options)
    listening = _listen(host, port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        proxy_headers=False,
    )
    server = _Server(config, app.state.desk)
    task = asyncio.create_task(server.serve([listening]))
    shown = f"[{host}]" if ":" in host else host
    try:
        yield Running(server, task, f"http://{shown}:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listening.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise UsageError(f"cannot serve at {host}, port {port}: {error.strerror or error}") from None
    made.setblocking(False)
    return made
