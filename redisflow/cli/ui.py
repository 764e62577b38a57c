"""`ui`: the dashboard and the HTTP API, on this machine unless told otherwise.

The extra `web` brings what it needs; without it the command says so. It starts the embedded server where no URL is given, as a
worker does.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from redisflow.cli.options import Options, open_client, pass_options, run_async, server_options
from redisflow.cli.services import end_with_stdin
from redisflow.model.errors import UsageError
from redisflow.worker.capture import set_up_logging

if TYPE_CHECKING:
    from redisflow.client import Client
    from redisflow.web import WebOptions

PORT = 8420
MISSING = "the dashboard needs more libraries: pip install 'redisflow[web]'"


@click.command()
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; another than this machine's needs tokens."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--token-file", type=click.Path(path_type=Path), metavar="FILE",
    help="Who may come in: a line `NAME read|write TOKEN` for each user.",
)  # fmt: skip
@click.option("--read-only", is_flag=True, help="Allow no action, to nobody.")
@click.option("--leash", is_flag=True, hidden=True, help="End when stdin ends.")
@server_options
@pass_options
def ui(options: Options, host: str, port: int, token_file: Path | None, read_only: bool, leash: bool) -> None:
    """Serve the dashboard and the HTTP API.

    Runs until SIGTERM or Ctrl-C. Without --token-file it serves this machine alone, and everyone on it.
    """
    try:
        from redisflow.web.access import Tokens
        from redisflow.web.options import WebOptions, check_address
    except ImportError:
        raise UsageError(MISSING) from None
    check_address(host, token_file)
    tokens = Tokens.load(token_file) if token_file else None
    set_up_logging(options.settings().log_format)
    run_async(_serve(options, WebOptions(tokens=tokens, read_only=read_only), host, port, leash))


async def _serve(options: Options, given: WebOptions, host: str, port: int, leash: bool) -> None:
    async with open_client(options, service=True) as client, running(client, given, host, port) as server:
        click.echo(f"dashboard at {server.url}, API at {server.url}/api/v1; Ctrl-C ends")
        if leash:
            end_with_stdin(server.stop)
        await server.wait()


class Running:
    """A dashboard that serves; `url` is where."""

    def __init__(self, server: Any, task: asyncio.Task[None], url: str) -> None:
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
async def running(
    client: Client, given: WebOptions, host: str, port: int, *, signals: bool = True
) -> AsyncIterator[Running]:
    """A dashboard over an open client, ended with the block.

    Args:
        client: open.
        given: see `WebOptions`.
        host: address.
        port: 0 for a free one.
        signals: whether SIGTERM and SIGINT end it; otherwise they are the caller's.

    Raises:
        UsageError: the address cannot be had.
    """
    import uvicorn

    from redisflow.web import create_app
    from redisflow.web.app import close_tails

    app = create_app(client, given)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await close_tails(app.state.desk)  # streams never end by themselves
            await super().shutdown(sockets)

    listening = _listen(host, port)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    server = Server(config)
    task = asyncio.create_task(server.serve([listening]) if signals else server._serve([listening]))
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
