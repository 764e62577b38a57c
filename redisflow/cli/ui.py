"""`ui`: the dashboard and the HTTP API, on this machine unless told otherwise.

The extra `web` brings what it needs; without it the command says so. It starts the embedded server where no URL is given, as a
worker does.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from redisflow.cli.options import Options, open_client, pass_options, run_async, server_options
from redisflow.cli.services import end_with_stdin
from redisflow.model.errors import UsageError
from redisflow.worker.capture import set_up_logging

if TYPE_CHECKING:
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
@click.option(
    "--behind-proxy", metavar="ADDRESSES",
    help="Proxies with TLS in front, such as 127.0.0.1: their X-Forwarded-Proto and -For count.",
)  # fmt: skip
@click.option("--leash", is_flag=True, hidden=True, help="End when stdin ends.")
@server_options
@pass_options
def ui(
    options: Options, host: str, port: int, token_file: Path | None, read_only: bool, behind_proxy: str | None, leash: bool
) -> None:  # fmt: skip
    """Serve the dashboard and the HTTP API.

    Runs until SIGTERM or Ctrl-C. Without --token-file it serves this machine alone, and everyone on it.
    """
    try:
        from redisflow.web import WebOptions
        from redisflow.web.access import Tokens
        from redisflow.web.options import check_address, check_proxies
    except ImportError:
        raise UsageError(MISSING) from None
    check_address(host, token_file)
    check_proxies(behind_proxy, token_file)
    tokens = Tokens.load(token_file) if token_file else None
    set_up_logging(options.settings().log_format)
    web = WebOptions(tokens=tokens, read_only=read_only, behind_proxy=behind_proxy)
    run_async(_serve(options, web, host, port, leash))


async def _serve(options: Options, given: WebOptions, host: str, port: int, leash: bool) -> None:
    from redisflow.web.serve import running

    async with open_client(options, service=True) as client, running(client, given, host, port) as served:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, served.stop)
        click.echo(f"dashboard at {served.url}, API at {served.url}/api/v1; Ctrl-C ends")
        if leash:
            end_with_stdin(served.stop)
        await served.wait()
