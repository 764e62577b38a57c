"""Which server a command talks to, and how it opens a client.

`--url` and `--namespace` may stand before or after the command's name. A command of a person gives up on an
unreachable server after three seconds; a service rides it out. Unlike the library, a command may start the
embedded server: a service always, a question only where one has run in this folder before.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from redisflow.client import Client
    from redisflow.embedded import EmbeddedServer
    from redisflow.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
PATIENCE = "3s"


@dataclass
class Options:
    """What was said about the server; the rest is read from the environment."""

    url: str | None = None
    namespace: str | None = None

    def settings(self) -> Settings:
        """Settings of the environment with what was given on top.

        Raises:
            InvalidArgument: the URL is none.
            InvalidInput: one of them is not allowed; the problem names the variable.
        """
        from pydantic import ValidationError

        from redisflow.model.errors import InvalidArgument, InvalidInput
        from redisflow.settings import Settings

        given: dict[str, Any] = {"url": self.url, "namespace": self.namespace}
        try:
            settings = Settings(**{name: value for name, value in given.items() if value is not None})
            urlsplit(settings.url or "")
            return settings
        except ValidationError as error:
            problems = [
                (f"REDISFLOW_{_path(problem['loc'])}", problem["msg"].removeprefix("Value error, "))
                for problem in error.errors(include_url=False)
            ]
            raise InvalidInput("a setting", problems) from None
        except ValueError as error:  # of urlsplit
            raise InvalidArgument("url", "…", f"{error}; write for example redis://host:6379/0") from None


def _path(place: tuple[str | int, ...]) -> str:
    return ".".join(str(part) for part in place).upper()


def server_options(command: F) -> F:
    """Add `--url` and `--namespace` to a command."""
    for name, text in (
        ("namespace", "Prefix of all keys; default: REDISFLOW_NAMESPACE, else redisflow."),
        ("url", "Server; default: REDISFLOW_URL, else the embedded one of this folder."),
    ):
        command = click.option(f"--{name}", expose_value=False, callback=_keep, metavar="TEXT", help=text)(command)
    return command


def _keep(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        setattr(ctx.ensure_object(Options), str(parameter.name), value)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, to stdout.")
pass_options = click.make_pass_decorator(Options, ensure=True)


@asynccontextmanager
async def open_client(options: Options, *, service: bool = False, patient: bool = False) -> AsyncIterator[Client]:
    """An open client.

    Args:
        options: which server.
        service: start the embedded server where it is needed, and ride out an unreachable one.
        patient: give up early on opening only, for commands that wait.

    Raises:
        ServerUnavailable: there is no server, or it does not answer.
    """
    from redisflow.client import Client
    from redisflow.settings import parse_duration

    settings = options.settings()
    embedded: EmbeddedServer | None = None
    try:
        if settings.url is None and (service or await asyncio.to_thread(Path(settings.home).is_dir)):
            embedded = await start_embedded(settings)
            settings = settings.model_copy(update={"url": embedded.url})
        if not service and not patient:
            settings = settings.model_copy(update={"retry_deadline": parse_duration(PATIENCE)})
        client = Client(settings=settings)
        try:
            await client.open(deadline=None if service else PATIENCE)
            yield client
        finally:
            await client.close()
    finally:
        if embedded is not None:
            await asyncio.to_thread(embedded.close)


async def start_embedded(settings: Settings) -> EmbeddedServer:
    """The embedded server of this folder, started where it does not run."""
    from redisflow.embedded import EmbeddedServer

    return await asyncio.to_thread(EmbeddedServer.start, settings.home)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine; Ctrl-C cancels it."""
    return asyncio.run(work)
