"""`demo`: the promise of the engine, seen to be kept in under a minute.

Two workers and a reclaimer, as they would be deployed, run a real workflow over the standard library. In the
middle of a step its worker is killed with SIGKILL, so nothing of it can clean up. The reclaimer finds the
silence, takes the step back, the other worker runs it again, and the run completes. Fails if that is not
what happened.

It has a namespace of its own: its thresholds are short, and must not meet workers with longer ones.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import click

from redisflow.backend.location import redact
from redisflow.backend.redis.inspect import workers
from redisflow.cli.children import Child, stop_all
from redisflow.cli.demo_board import Board
from redisflow.cli.load import load_workflows
from redisflow.cli.options import Options, open_client, pass_options, run_async, server_options
from redisflow.cli.text import clean, now_us
from redisflow.client import Client, Run
from redisflow.define import Workflow
from redisflow.model.errors import RedisflowError, ServerUnavailable
from redisflow.model.events import BaseEvent, StepReclaimed, StepStarted
from redisflow.settings import format_duration

NAMESPACE: Final = "demo"
EXAMPLE: Final = "stdlib_census.py"
VICTIM: Final = "parse"
"""Steps whose id has this in it are long enough to kill a worker in the middle of one."""
PACE: Final = 3.0
"""Seconds that such a step takes at least."""
SLOTS: Final = "4"
LIMIT: Final = 55.0
THRESHOLDS: Final = {
    "REDISFLOW_STALE_AFTER": "2s",
    "REDISFLOW_HEARTBEAT_INTERVAL": "500ms",
    "REDISFLOW_RECLAIM_INTERVAL": "500ms",
}
HEAD: Final = 12


@click.command()
@server_options
@pass_options
def demo(options: Options) -> None:
    """Run a real workflow, kill a worker in the middle, watch the rescue.

    Uses the embedded server of this folder unless --url is given.
    """
    if options.url is None:
        os.environ.pop("REDISFLOW_URL", None)  # the children inherit it too
    options.namespace = options.namespace or NAMESPACE
    os.environ["REDISFLOW_NAMESPACE"] = options.namespace
    os.environ["REDISFLOW_HOME"] = str(options.settings().home.absolute())
    if options.url is not None:
        os.environ["REDISFLOW_URL"] = options.url
    run_async(_Demo(options).run())


def example() -> Path:
    """The example workflow: in the installed package, else in the checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / EXAMPLE).is_file():
            return folder / EXAMPLE
    raise RedisflowError(f"examples/{EXAMPLE} is not there: install redisflow anew, or run in its checkout")


@dataclass
class Rescue:
    """What became of the steps that the killed worker held; times in µs since the epoch."""

    worker: str = ""
    killed_at: int = 0
    lost: list[str] = field(default_factory=list)
    taken_back: dict[str, int] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)


class _Demo:
    """One run of `redisflow demo`."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._flow: Workflow[Any, Any] = load_workflows([str(example())])[0]
        self._workers: dict[str, Child] = {}
        self._rescue = Rescue()
        self._killer: asyncio.Task[None] | None = None
        self._board = Board(step.id for step in self._flow.plan.steps)

    async def run(self) -> None:
        """The whole of it, within its limit."""
        try:
            async with asyncio.timeout(LIMIT), open_client(self._options, service=True) as client:
                folder = client.settings.home / "demo"
                await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
                async with self._children(client, folder):
                    await self._show(client, folder)
        except TimeoutError:
            logs = _logs(self._options)
            raise RedisflowError(f"the demo did not end within {LIMIT:g} s: see {logs}") from None

    @asynccontextmanager
    async def _children(self, client: Client, folder: Path) -> AsyncIterator[None]:
        """Two workers and a reclaimer, ready; all are gone in the end."""
        children: list[Child] = []
        try:
            for name in ("worker 1", "worker 2"):
                arguments = ["worker", str(example()), "--concurrency", SLOTS]
                log = folder / f"{name.replace(' ', '-')}.log"
                self._workers[name] = await Child.start(arguments, env=THRESHOLDS, log=log)
                children.append(self._workers[name])
                self._board.names[f"-{children[-1].pid}."] = name
            children.append(await Child.start(["reclaimer"], env=THRESHOLDS, log=folder / "reclaimer.log"))
            await self._until_ready(client, children)
            yield
        finally:
            if self._killer is not None:
                self._killer.cancel()
            await stop_all(children, 3.0)

    async def _until_ready(self, client: Client, children: list[Child]) -> None:
        while True:
            if not all(child.alive for child in children):
                raise ServerUnavailable(f"a child process ended as it started: see {_logs(self._options)}")
            ids = [str(worker.get("id")) for worker in await workers(client.backend, 5_000_000)]
            if all(any(part in name for name in ids) for part in self._board.names):
                return
            await asyncio.sleep(0.05)

    async def _show(self, client: Client, folder: Path) -> None:
        report = folder / "stdlib-census.md"
        await asyncio.to_thread(report.unlink, missing_ok=True)
        run = await client.submit(self._flow, {"output_path": str(report.absolute()), "pace": PACE})
        pids = ", ".join(f"{name} is process {child.pid}" for name, child in self._workers.items())
        self._board.say(f"run {run.id} of {self._flow.slug}; {pids}")
        with self._board:
            async for event in run.events():
                self._board.apply(event)
                self._watch(event)
        status = (await run.status()).status
        self._tell(run, status, report)
        await run.result()  # raises what went wrong
        if not self._rescue.again:
            raise RedisflowError("the run completed, but no step had to be rescued")

    def _watch(self, event: BaseEvent) -> None:
        """Kill the worker of the first long step; follow what becomes of what it held."""
        rescue = self._rescue
        if isinstance(event, StepStarted):
            if VICTIM in event.step_id and self._killer is None:
                self._killer = asyncio.create_task(self._kill(event))
            elif event.attempt_number > 1 and event.step_id in rescue.taken_back:
                rescue.again.setdefault(event.step_id, event.timestamp_us)
                name = self._board.name_of(event.worker_id)
                text = f"{name} runs {event.step_id} again (attempt {event.attempt_number})"
                self._board.say(text, "green")
        elif isinstance(event, StepReclaimed):
            rescue.taken_back[event.step_id] = event.timestamp_us
            name, silent = rescue.worker, format_duration(event.stale_duration_us)
            text = f"the reclaimer takes {event.step_id} back from {name}, silent for {silent}"
            self._board.say(text, "yellow")

    async def _kill(self, event: StepStarted) -> None:
        """SIGKILL the step's worker when the step is half done."""
        await asyncio.sleep(PACE / 2)
        rescue, name = self._rescue, self._board.name_of(event.worker_id)
        child, row = self._workers.get(name), self._board.rows[event.step_id]
        if child is None or row.status != "running":
            return
        child.kill()
        await child.wait()
        rescue.worker, rescue.killed_at = name, now_us()
        rescue.lost = [step for step, row in self._board.rows.items() if row.status == "running" and row.worker == name]
        self._board.say(f"SIGKILL to {name} in the middle of {', '.join(rescue.lost)}", "bold red")

    def _tell(self, run: Run[Any], status: str, report: Path) -> None:
        """The facts, and how to look further."""
        rows, rescue = self._board.rows, self._rescue
        done = sum(row.status == "completed" for row in rows.values())
        attempts = sum(row.attempt for row in rows.values() if row.status != "pending")
        if report.is_file():
            shown = os.path.relpath(report)
            click.echo(f"\n{shown}:")
            for line in report.read_text(errors="replace").splitlines()[:HEAD]:
                click.echo(f"  {clean(line)}")
        click.echo(f"\nrun {run.id} {status}: {done} of {len(rows)} steps, {attempts} attempts")
        for step, at in rescue.again.items():
            back = format_duration(rescue.taken_back[step] - rescue.killed_at)
            again = format_duration(at - rescue.killed_at)
            click.echo(
                f"rescued {step}: {rescue.worker} was killed, the reclaimer took it back after {back}, "
                f"{rows[step].worker} began it again after {again}"
            )
        own = "" if self._options.url is None else f" --url '{redact(self._options.url)}'"
        command = f"redisflow --namespace {self._options.namespace}{own}"
        click.echo("\nLook further:")
        for what in (f"show {run.id}", f"events {run.id}", "runs", "doctor", f"verify {run.id}"):
            click.echo(f"  {command} {what}")


def _logs(options: Options) -> str:
    return os.path.join(os.path.relpath(options.settings().home), "demo", "*.log")
