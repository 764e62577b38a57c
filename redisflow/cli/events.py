"""`events`: the history of a run, one line an event, as it is or live."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from redisflow.backend.keys import check_run_id
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clock, console, plain, print_json, short
from redisflow.model.errors import RunNotFound
from redisflow.model.events import EVENT_TYPES
from redisflow.settings import format_duration

if TYPE_CHECKING:
    from rich.text import Text

_STYLES = {
    "StepCompleted": "green", "StepFailed": "red", "StepReclaimed": "yellow", "StepRetrying": "yellow",
    "StepSkipped": "blue", "WorkflowCompleted": "bold green", "WorkflowFailed": "bold red",
    "WorkflowCancelled": "magenta",
}  # fmt: skip


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE",
    type=click.Choice(sorted(EVENT_TYPES), case_sensitive=False), help="Only this type; may be repeated.",
)  # fmt: skip
@json_option
@server_options
@pass_options
def events(options: Options, run_id: str, follow: bool, types: tuple[str, ...], as_json: bool) -> None:
    """Print the events of a run.

    With --json one JSON object a line, in the form that other tools read.
    """
    run_async(_events(options, run_id, follow, frozenset(types), as_json))


async def _events(options: Options, run_id: str, follow: bool, types: frozenset[str], as_json: bool) -> None:
    out = console()

    def tell(wire: Mapping[str, Any]) -> None:
        if types and wire["type"] not in types:
            return
        if as_json:
            print_json(wire, indent=None)
        else:
            out.print(event_line(wire), soft_wrap=True)

    async with open_client(options, patient=follow) as client:
        if follow:
            async for event in client.events(run_id):
                tell(event.to_wire())
            return
        history = await client.backend.load_wire_events(check_run_id(run_id))
    if not history:
        raise RunNotFound(run_id)
    for wire in history:
        tell(wire)


def event_line(wire: Mapping[str, Any], *, with_run: bool = False) -> Text:
    """One event in a line: time, run if wanted, type, step, and what matters of the rest."""
    line = plain(clock(wire["timestampUs"], millis=True) + "  ", "dim")
    if with_run:
        line.append_text(plain(f"{wire['workflowSlug']} {wire['runId']}  ", "cyan"))
    line.append_text(plain(f"{wire['type']:<18}", _STYLES.get(wire["type"], "")))
    if wire.get("stepId"):
        line.append_text(plain(f"  {wire['stepId']}", "bold"))
    facts = "  ".join(_facts(wire))
    return line.append_text(plain(f"  {facts}" if facts else ""))


def _facts(wire: Mapping[str, Any]) -> list[str]:
    """What matters of an event, whatever its type."""
    found = []
    attempt = wire.get("attemptNumber") or wire.get("workflowAttemptNumber") or 1
    if attempt > 1:
        found.append(f"attempt {attempt}")
    words = ("reason", "skipType", "failureReason", "failedStep")
    found += [short(str(wire[name]), 80) for name in words if wire.get(name)]
    if wire.get("workerId"):
        found.append(short(f"on {wire['workerId']}", 80))
    if wire.get("originalWorkerId"):
        found.append(short(f"from {wire['originalWorkerId']}", 80))
        found.append(f"silent for {format_duration(wire['staleDurationUs'])}")
    if wire.get("durationUs"):
        found.append(format_duration(wire["durationUs"]))
    if wire.get("retryDelayMs"):
        found.append(f"in {format_duration(wire['retryDelayMs'] * 1000)}")
    if wire.get("error"):
        error = wire["error"]
        found.append(short(f"{error.get('name') or 'error'}: {error['message']}", 160))
    payloads = ("message", "input", "output", "data")
    found += [short(str(wire[name]), 100) for name in payloads if wire.get(name) not in (None, "", "{}")]
    if wire.get("terminal"):
        found.append("no attempt left")
    return found
