"""`dev`: all that development needs in one terminal.

The embedded server (unless a URL is given), a worker in a process of its own, a reclaimer, the dashboard where the extra `web` is
installed, and a line for each event of every run. When a Python file beside the given ones changes, the worker drains and a new one
loads the new code; one that does not load waits for the next change.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from redisflow.backend.location import redact
from redisflow.backend.redis.inspect import Tail
from redisflow.cli.children import Child
from redisflow.cli.events import event_line
from redisflow.cli.load import is_file
from redisflow.cli.options import Options, open_client, pass_options, run_async, server_options
from redisflow.cli.text import console
from redisflow.cli.ui import MISSING, PORT
from redisflow.client import Client
from redisflow.model.errors import ServerUnavailable, UsageError
from redisflow.reclaimer import Reclaimer
from redisflow.worker.capture import set_up_logging

POLL = 0.3  # seconds between looks at files and events
MAX_FILES = 5_000
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "venv"}


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILES...")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Steps at once; default: 100.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port of the dashboard.")
@server_options
@pass_options
def dev(options: Options, sources: tuple[str, ...], concurrency: int | None, port: int) -> None:
    """Server, worker, reclaimer and dashboard in one, with reload and a live tail of events.

    FILES are files or dotted modules with workflows. Ends with Ctrl-C.
    """
    set_up_logging()
    run_async(_Dev(options, sources, concurrency, port).run())


class _Dev:
    """One run of `redisflow dev`."""

    def __init__(self, options: Options, sources: tuple[str, ...], concurrency: int | None, port: int) -> None:
        self._options = options
        self._port = port
        self._folders = [folder_of(source) for source in sources]
        self._arguments = ["worker", *sources]
        if concurrency:
            self._arguments += ["--concurrency", str(concurrency)]
        self._out = console()
        self._stopping = asyncio.Event()
        self._worker: Child | None = None

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stopping.set)
        async with open_client(self._options, service=True) as client:
            reclaimer = Reclaimer(client)
            tasks = [
                asyncio.create_task(work)
                for work in (
                    reclaimer.run(),
                    self._keep_worker(),
                    self._tail(client),
                    self._dashboard(client),
                    self._stopping.wait(),
                )
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                self._say("stopping")
            finally:
                for task in tasks:
                    task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                await self._end_worker()
            for result in results:
                if isinstance(result, Exception):
                    raise result

    def _say(self, text: str) -> None:
        self._out.print(f"-- {text}", style="dim", markup=False)

    async def _keep_worker(self) -> None:
        """Start the worker, and anew whenever a file changes."""
        env = {"REDISFLOW_DRAIN_TIMEOUT": os.environ.get("REDISFLOW_DRAIN_TIMEOUT", "5s")}
        if self._options.url:
            env["REDISFLOW_URL"] = self._options.url
        if self._options.namespace:
            env["REDISFLOW_NAMESPACE"] = self._options.namespace
        while True:
            before = await asyncio.to_thread(stamps, self._folders)
            self._worker = await Child.start(self._arguments, env=env)
            await self._until_changed(before, self._worker)
            self._say("a file changed: reloading")
            await self._end_worker()

    async def _until_changed(self, before: dict[str, int], worker: Child) -> None:
        told = False
        while await asyncio.to_thread(stamps, self._folders) == before:
            if not worker.alive and not told:
                told = True
                self._say(f"the worker ended with exit code {await worker.wait()}; waiting for a change")
            await asyncio.sleep(POLL)

    async def _dashboard(self, client: Client) -> None:
        """The dashboard while all this runs; a port that is taken is no reason to stop."""
        try:
            from redisflow.web import WebOptions
            from redisflow.web.serve import running
        except ImportError:
            self._say(MISSING)
            await asyncio.Future()
        try:
            async with running(client, WebOptions(), "127.0.0.1", self._port) as served:
                self._say(f"dashboard at {served.url}")
                await served.wait()
        except UsageError as error:
            self._say(f"no dashboard: {error}; choose another with --port, 0 for any")
            await asyncio.Future()

    async def _end_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.stop()

    async def _tail(self, client: Client) -> None:
        self._say(f"namespace {client.settings.namespace} at {redact(client.backend.settings.url or '')}; Ctrl-C ends")
        tail = Tail(client.backend)
        while True:
            with contextlib.suppress(ServerUnavailable):  # it may come back; the log tells of it
                for wire in await tail.poll():
                    self._out.print(event_line(wire, with_run=True), soft_wrap=True)
            await asyncio.sleep(POLL)


def folder_of(source: str) -> Path:
    """The folder whose Python files are watched for a file or module.

    Raises:
        UsageError: there is no such file or module.
    """
    if is_file(source):
        if not Path(source).is_file():
            raise UsageError(f"there is no file {source}")
        return Path(source).absolute().parent
    top = source.partition(".")[0]
    sys.path.insert(0, str(Path.cwd()))
    spec = importlib.util.find_spec(top) if top.isidentifier() else None
    sys.path.pop(0)
    if spec is None:
        raise UsageError(f"there is no module {source!r}: a file is given by its path, such as flows.py")
    places = list(spec.submodule_search_locations or ())
    return Path(places[0]) if places else Path(spec.origin or "").parent


def stamps(folders: Iterable[Path]) -> dict[str, int]:
    """Time of the last change of each Python file under the folders, without environments and hidden ones."""
    found: dict[str, int] = {}
    for path in _python_files(folders):
        with contextlib.suppress(OSError):  # deleted in between
            found[path] = os.stat(path).st_mtime_ns
        if len(found) >= MAX_FILES:
            break
    return found


def _python_files(folders: Iterable[Path]) -> Iterator[str]:
    for folder in dict.fromkeys(folders):
        for place, inner, files in os.walk(folder):
            wanted = (name for name in inner if not name.startswith(".") and name not in _SKIPPED)
            inner[:] = [name for name in wanted if not Path(place, name, "pyvenv.cfg").exists()]
            yield from (os.path.join(place, name) for name in files if name.endswith(".py"))
