"""`logs`: the lines that the steps of a run wrote, as they are or live."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from redisflow.backend.keys import check_run_id
from redisflow.backend.redis.events import TERMINAL
from redisflow.backend.redis.inspect import plan_of_run
from redisflow.backend.redis.runs import LIVE
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clock, console, plain, print_json
from redisflow.client import Client
from redisflow.model.errors import RunNotFound, StepNotFound

if TYPE_CHECKING:
    from rich.text import Text


@click.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step", required=False)
@click.option("--attempt", type=click.IntRange(1), help="Only lines of this attempt.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@json_option
@server_options
@pass_options
def logs(options: Options, run_id: str, step: str | None, attempt: int | None, follow: bool, as_json: bool) -> None:
    """Print what the steps of a run wrote, or only one step.

    With --json one JSON object a line, as `redisflow events` prints them.
    """
    run_async(_logs(options, run_id, step, attempt, follow, as_json))


async def _logs(
    options: Options, run_id: str, step: str | None, attempt: int | None, follow: bool, as_json: bool
) -> None:
    out = console()
    async with open_client(options, patient=follow) as client:
        history = await client.backend.load_wire_events(check_run_id(run_id))
        if not history:
            raise RunNotFound(run_id)
        if step is not None:
            await _check_step(client, run_id, step, history)
        async for wire in _live(client, run_id) if follow else _as_is(history):
            if wire["type"] != "LogEntry" or step not in (None, wire["stepId"]):
                continue
            if attempt in (None, wire["attemptNumber"]):
                if as_json:
                    print_json(wire, indent=None)
                else:
                    out.print(log_line(wire, with_step=step is None), soft_wrap=True)


async def _check_step(client: Client, run_id: str, step: str, history: list[dict[str, Any]]) -> None:
    plan = await plan_of_run(client.backend, run_id)
    if step not in {*(plan.steps if plan else ()), *(wire.get("stepId") for wire in history)}:
        raise StepNotFound(step, f"run {run_id!r}")


async def _as_is(history: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for wire in history:
        yield wire


async def _live(client: Client, run_id: str) -> AsyncIterator[dict[str, Any]]:
    """Events until the run has ended, with those that came after its end: last lines may be late."""
    seen = 0
    async for event in client.events(run_id):
        seen += 1
        wire = event.to_wire()
        yield wire
        if wire["type"] in TERMINAL and (await client.status(run_id)).status not in LIVE:
            break
    for wire in (await client.backend.load_wire_events(run_id))[seen:]:
        yield wire


def log_line(wire: Mapping[str, Any], *, with_step: bool) -> Text:
    """One line: time, step if wanted, attempt if it is not the first, and the message."""
    line = plain(clock(wire["timestampUs"], millis=True) + "  ", "dim")
    if with_step:
        line.append_text(plain(f"{wire['stepId']}  ", "bold"))
    if wire["attemptNumber"] > 1:
        line.append_text(plain(f"attempt {wire['attemptNumber']}  ", "yellow"))
    return line.append_text(plain(wire["message"], "red" if wire["stream"] == "stderr" else ""))
