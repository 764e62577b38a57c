"""`export` and `import`: runs as JSON lines, an event each, from one namespace into another or into other tools."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from redisflow.backend.redis.transfer import ImportReport, export_runs, import_runs
from redisflow.cli.look import STATUSES
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clean, print_json
from redisflow.model.errors import UsageError


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN...]")
@click.option("--workflow", help="Only runs of this workflow.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Repeated: any of them.")
@click.option("--json", is_flag=True, expose_value=False, help="Changes nothing: the output is JSON lines.")
@server_options
@pass_options
def export(options: Options, run_ids: tuple[str, ...], workflow: str | None, statuses: tuple[str, ...]) -> None:
    """Print the events of runs as JSON lines.

    One event a line, one run after the other, oldest run first; without RUN all runs. `redisflow import`
    reads it.
    """
    run_async(_export(options, run_ids, workflow, statuses))


async def _export(options: Options, run_ids: tuple[str, ...], workflow: str | None, statuses: tuple[str, ...]) -> None:
    async with open_client(options) as client:
        async for wire in export_runs(client.backend, run_ids, workflow_slug=workflow, statuses=statuses):
            print_json(wire, indent=None)


@click.command("import")
@click.argument("file", default="-", metavar="[FILE]")
@click.option("--rename", is_flag=True, help="Give every run a new id.")
@json_option
@server_options
@pass_options
def import_(options: Options, file: str, rename: bool, as_json: bool) -> None:
    """Write runs from JSON lines, as `redisflow export` prints them.

    Reads FILE, or stdin without one. Every line is checked before anything is written, and without --rename
    a run id that is in use is refused. Times are kept, so a run that ended longer ago than the retention is
    deleted by the next round of a reclaimer.

    A run that had not ended is stored as it stood, but without its plan, so it cannot go on: no worker has
    code for its steps, and what was scheduled fails as `step-removed` in the end. How many such runs there
    were is told; cancel them, and submit them anew.
    """
    report = run_async(_import(options, file, rename))
    if as_json:
        print_json({
            "runs": list(report.runs), "events": report.events, "live": list(report.live),
            "renamed": dict(report.renamed),
        })  # fmt: skip
    else:
        _tell(report)


async def _import(options: Options, file: str, rename: bool) -> ImportReport:
    async with open_client(options) as client:
        return await import_runs(client.backend, _lines(file), rename)


def _lines(file: str) -> Iterator[bytes]:
    """Lines of a file, or of stdin for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        if file == "-":
            yield from sys.stdin.buffer
            return
        with Path(file).open("rb") as stream:
            yield from stream
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


def _tell(report: ImportReport) -> None:
    for old, new in report.renamed.items():
        click.echo(f"{clean(old)} is now {new}")
    count = len(report.runs)
    click.echo(f"{count} run{'' if count == 1 else 's'} with {report.events} events imported")
    if report.live:
        names = ", ".join(report.live[:5]) + (", …" if len(report.live) > 5 else "")
        click.echo(f"{len(report.live)} had not ended and cannot go on, as they have no plan here: {names}", err=True)
