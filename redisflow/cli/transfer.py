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
    reads it. The first RunSubmitted of each version has a further field, `plan`, by which runs that had not
    ended can go on where they are imported; other readers may pass it by.
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

    A run that had not ended goes on, if its plan came along or is known here by its version: steps that were
    scheduled can be claimed at their time. Steps that were running count as claimed at the time of the import
    by a worker that sends no heartbeat: the reclaimer takes them back after the stale threshold, which counts
    as a crash. So let the run's old namespace rest. Timeouts go on from the times in the events.

    Where there is no plan, such a run is imported as history only, which is told: no worker has code for its
    steps, and what was scheduled fails as `step-removed` in the end. Cancel it, and submit it anew.
    """
    report = run_async(_import(options, file, rename))
    if as_json:
        print_json({
            "runs": list(report.runs), "events": report.events, "live": list(report.live),
            "historyOnly": list(report.history_only), "renamed": dict(report.renamed),
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
    click.echo(f"{_runs(len(report.runs))} with {report.events} events imported")
    going = len(report.live) - len(report.history_only)
    if going:
        click.echo(f"{_runs(going)} had not ended and will go on here")
    if report.history_only:
        names = ", ".join(report.history_only[:5]) + (", …" if len(report.history_only) > 5 else "")
        click.echo(
            f"{_runs(len(report.history_only))} had not ended but came in as history only, since neither the lines nor this "
            f"namespace have the plan of the version: {names}",
            err=True,
        )


def _runs(count: int) -> str:
    return f"{count} run{'' if count == 1 else 's'}"
