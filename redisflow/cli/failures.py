"""`errors` and `error`: failures in groups of equal errors, and one group with its stack and where it happened.

A fingerprint is three hashes of 40 digits, too long for a line. A person sees the first digits of each, and may give those.
"""

from __future__ import annotations

from typing import Any, cast

import click

from redisflow.backend.redis.analytics import Analytics
from redisflow.cli.options import Options, json_option, pass_options, run_async, server_options
from redisflow.cli.stats import open_figures, since_option, window_start
from redisflow.cli.text import clock, console, plain, print_json, short, table
from redisflow.model.analytics import ErrorDetail, ErrorsList
from redisflow.model.errors import InvalidArgument, RedisflowError
from redisflow.model.fingerprints import GROUPINGS, Grouping
from redisflow.settings import format_duration

DIGITS = 8
"""Digits of each hash that are shown."""
HASH = 40
MOST = 100_000

grouping_option = click.option(
    "--grouping", type=click.Choice(GROUPINGS), default="exact", show_default=True,
    help="What makes errors equal: exact frames, frames without lines, or paths without the machine's part.",
)  # fmt: skip


@click.command()
@click.option("--workflow", metavar="SLUG", help="Only this workflow.")
@since_option
@grouping_option
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0, 1_000_000_000), default=0)
@json_option
@server_options
@pass_options
def errors(options: Options, /, workflow: str | None, since: int, grouping: str, as_json: bool, **page: int) -> None:
    """List what fails, most frequent first."""
    found = run_async(_errors(options, workflow, since, cast(Grouping, grouping), page))
    if as_json:
        print_json(found.to_wire())
        return
    rows = [
        (_short(group.fingerprint), group.count, group.affected_runs, clock(group.last_seen),
         plain(f"{group.error_name}: {short(group.error_message, 120)}", "red"))
        for group in found.errors
    ]  # fmt: skip
    if rows:
        console().print(table(("fingerprint", ">failures", ">runs", "last", "error"), rows))
    click.echo(f"{len(rows)} of {_many(found.total, 'error')} in {format_duration(since)}")


async def _errors(
    options: Options, workflow: str | None, since: int, grouping: Grouping, page: dict[str, int]
) -> ErrorsList:
    async with open_figures(options) as figures:
        return await figures.get_errors_list(
            start_us=await window_start(figures, since), workflow_slug=workflow, grouping_strategy=grouping,
            limit=page["limit"], offset=page["offset"],
        )  # fmt: skip


@click.command()
@click.argument("fingerprint")
@since_option
@grouping_option
@click.option("--limit", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Occurrences to list.")
@click.option("--offset", type=click.IntRange(0, 1_000_000_000), default=0)
@json_option
@server_options
@pass_options
def error(options: Options, /, fingerprint: str, since: int, grouping: str, as_json: bool, **page: int) -> None:
    """Show one error: its newest stack, and where it happened, newest first.

    FINGERPRINT is as `redisflow errors` gives it, under the same --grouping; the first digits of each part
    are enough.
    """
    found = run_async(_error(options, fingerprint, since, cast(Grouping, grouping), page))
    if not found.total_count:
        raise RedisflowError(
            f"no failure of fingerprint {fingerprint!r} in {format_duration(since)}: see `redisflow errors`, or give "
            "--since or the --grouping that it was listed under"
        )
    if as_json:
        print_json(found.to_wire())
    else:
        _print_detail(found)


async def _error(
    options: Options, fingerprint: str, since: int, grouping: Grouping, page: dict[str, Any]
) -> ErrorDetail:
    async with open_figures(options) as figures:
        start = await window_start(figures, since)
        fingerprint = await _whole(figures, fingerprint, start, grouping)
        return await figures.get_error_detail(fingerprint, grouping, start_us=start, **page)


async def _whole(figures: Analytics, given: str, start: int, grouping: Grouping) -> str:
    """The listed fingerprint that begins with the given digits; what was given where there is none.

    Raises:
        InvalidArgument: it begins several.
    """
    parts = given.split(":")
    if len(parts) != 3 or all(len(part) == HASH for part in parts):
        return given
    listed = await figures.get_errors_list(start_us=start, grouping_strategy=grouping, limit=MOST)
    fits = [
        group.fingerprint
        for group in listed.errors
        if all(whole.startswith(part) for whole, part in zip(group.fingerprint.split(":"), parts, strict=True))
    ]
    if len(fits) > 1:
        raise InvalidArgument("fingerprint", given, f"more digits: it begins {len(fits)} of them")
    return fits[0] if fits else given


def _short(fingerprint: str) -> str:
    return ":".join(part[:DIGITS] for part in fingerprint.split(":"))


def _print_detail(found: ErrorDetail) -> None:
    out = console()
    out.print(plain(f"{found.error_name}: {found.error_message}", "bold red"))
    counted = f"{_many(found.total_count, 'failure')} in {_many(found.affected_runs, 'run')}"
    out.print(plain(f"{counted}, from {clock(found.first_seen)} to {clock(found.last_seen)}"))
    for line in found.sample_stack.rstrip().split("\n") if found.sample_stack else ():
        out.print(plain(f"  {line}", "dim"), soft_wrap=True)
    rows = [
        (clock(at.timestamp_us), at.workflow_slug, at.run_id, at.step_id, at.attempt_number) for at in found.occurrences
    ]
    if rows:
        out.print(table(("at", "workflow", "run", "step", ">attempt"), rows))


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
