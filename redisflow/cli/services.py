"""`worker` and `reclaimer`: the processes of a deployment.

Both run until SIGTERM or SIGINT and then end cleanly. One that another command has started holds the other
end of its stdin: when that command dies, however it dies, stdin ends and so does the child.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import click
from typing_extensions import Unpack

from redisflow.backend.redis import RedisBackend
from redisflow.cli.load import load_workflows
from redisflow.cli.options import Options, open_client, pass_options, run_async, server_options
from redisflow.cli.text import clean
from redisflow.define import Workflow
from redisflow.reclaimer import Reclaimer
from redisflow.settings import Settings
from redisflow.worker import Worker
from redisflow.worker.capture import set_up_logging

log = logging.getLogger("redisflow.worker")
STRAY_PATIENCE = 1.0  # seconds


class Place(TypedDict):
    """Where /metrics is served, as far as options say."""

    metrics_port: int | None
    metrics_host: str | None


_leash = click.option("--leash", is_flag=True, hidden=True, help="End when stdin ends.")
_log_format = click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="Form of log lines; default: text."
)


def metrics_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--metrics-port` and `--metrics-host` to a service."""
    for name, kind, text in (
        ("host", click.STRING, "Address of /metrics; default: REDISFLOW_METRICS_HOST, else 127.0.0.1."),
        (
            "port",
            click.IntRange(0, 65_535),
            "Serve Prometheus metrics here; default: REDISFLOW_METRICS_PORT, else not.",
        ),
    ):
        command = click.option(f"--metrics-{name}", type=kind, help=text)(command)
    return command


def _metrics_port(settings: Settings, place: Place) -> int | None:
    """The port of /metrics, None where it is not served.

    Raises:
        UsageError: it is to be served, and the extra is not installed.
    """
    port = settings.metrics_port if place["metrics_port"] is None else place["metrics_port"]
    if port is not None:
        importlib.import_module("redisflow.metrics")
    return port


@asynccontextmanager
async def _metrics(settings: Settings, place: Place, collector: Callable[[], Any]) -> AsyncIterator[None]:
    """Serve /metrics meanwhile, where a port is given."""
    port = _metrics_port(settings, place)
    if port is None:
        yield
        return
    from redisflow.metrics import serve

    async with serve(collector(), host=place["metrics_host"] or settings.metrics_host, port=port):
        yield


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="MODULE_OR_FILE...")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Steps at once; default: 100.")
@click.option("--queues", metavar="A,B", help="Queues to serve in place of those of the workflows.")
@_log_format
@_leash
@metrics_options
@server_options
@pass_options
def worker(
    options: Options,
    sources: tuple[str, ...],
    concurrency: int | None,
    queues: str | None,
    log_format: str | None,
    leash: bool,
    **place: Unpack[Place],
) -> None:
    """Run the steps of workflows.

    Loads the workflows and tasks at the top level of dotted modules or files, and runs their steps until
    SIGTERM or Ctrl-C; then it drains: running steps get REDISFLOW_DRAIN_TIMEOUT to end.
    """
    flows = load_workflows(sources)
    settings = options.settings()
    _metrics_port(settings, place)
    set_up_logging(log_format or settings.log_format)
    names = [name for name in (part.strip() for part in (queues or "").split(",")) if name]
    run_async(_work(options, flows, concurrency, names, leash, place))


async def _work(
    options: Options,
    flows: list[Workflow[Any, Any]],
    concurrency: int | None,
    queues: list[str],
    leash: bool,
    place: Place,
) -> None:
    async with _ending_without_stray_threads(), open_client(options, service=True) as client:
        running = Worker(client, flows, concurrency=concurrency, queues=queues or None)
        running.stop_on_signals()
        if leash:
            end_with_stdin(running.stop)
        async with running, _metrics(client.settings, place, lambda: _of_worker(running)):
            await running.stopped()


def _of_worker(running: Worker) -> Any:
    from redisflow.metrics import WorkerMetrics

    return WorkerMetrics(running)


@asynccontextmanager
async def _ending_without_stray_threads() -> AsyncIterator[None]:
    """Threads that steps started and left behind would hold up the end of the process for ever: a deploy must not hang on them."""
    executor = ThreadPoolExecutor(thread_name_prefix="redisflow-io")
    asyncio.get_running_loop().set_default_executor(executor)
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
        raise
    finally:
        executor.shutdown(wait=False)
        until = time.monotonic() + STRAY_PATIENCE
        for thread in _stray_threads():
            thread.join(max(0.0, until - time.monotonic()))
        if stray := _stray_threads():
            log.warning("%d threads that steps started still run; ending without them", len(stray))
            if failure is not None:
                click.echo(f"Error: {clean(str(failure))}", err=True)
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(failure is not None)


def _stray_threads() -> list[threading.Thread]:
    mine = (threading.main_thread(), threading.current_thread())
    return [thread for thread in threading.enumerate() if not thread.daemon and thread not in mine]


@click.command()
@_log_format
@_leash
@metrics_options
@server_options
@pass_options
def reclaimer(options: Options, log_format: str | None, leash: bool, **place: Unpack[Place]) -> None:
    """Take steps back from dead workers, end late runs, delete old ones.

    Any number may run side by side; one is enough. Runs until SIGTERM or Ctrl-C.
    """
    settings = options.settings()
    _metrics_port(settings, place)
    set_up_logging(log_format or settings.log_format)
    run_async(_reclaim(options, leash, place))


async def _reclaim(options: Options, leash: bool, place: Place) -> None:
    async with open_client(options, service=True) as client:
        running = Reclaimer(client)
        running.stop_on_signals()
        if leash:
            end_with_stdin(running.stop)
        async with _metrics(client.settings, place, lambda: _of_namespace(client.backend)):
            await running.run()


def _of_namespace(backend: RedisBackend) -> Any:
    from redisflow.metrics import NamespaceMetrics

    return NamespaceMetrics(backend)


def end_with_stdin(stop: Callable[[], None]) -> None:
    """Call `stop` once when stdin ends; nothing is ever sent on it."""
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(stdin)
        stop()

    loop.add_reader(stdin, ended)
