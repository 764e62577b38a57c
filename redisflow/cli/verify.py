"""`verify`: holds every history against its rules and every key against the events, and mends keys if told to."""

from __future__ import annotations

import click

from redisflow.backend.redis.verify import Verifier, Violation
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clean, print_json
from redisflow.model.errors import RunNotFound
from redisflow.model.invariants import RULES


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN...]")
@click.option("--repair", is_flag=True, help="Make the keys of runs that differ anew from events.")
@json_option
@server_options
@pass_options
def verify(options: Options, run_ids: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check every history against its rules, and every key against the events.

    Without RUN checks all runs, sets and keys. Safe while workers run. Exits with 1 where something differs, also
    if it was repaired. docs/reliability.md lists the rules.
    """
    if run_async(_verify(options, run_ids, repair, as_json)):
        raise click.exceptions.Exit(1)


async def _verify(options: Options, run_ids: tuple[str, ...], repair: bool, as_json: bool) -> bool:
    found: list[Violation] = []
    repaired: dict[str, bool] = {}
    async with open_client(options) as client:
        verifier = Verifier(client.backend)
        for run_id, state in zip(run_ids, await client.backend.get_runs(run_ids), strict=True):
            if state is None:
                raise RunNotFound(run_id)
        async for violation in verifier.check(run_ids or None):
            found.append(violation)
            if not as_json:
                where = violation.run_id or "-"
                events = f" (events {', '.join(violation.event_ids)})" if violation.event_ids else ""
                click.echo(clean(f"{where}  {violation.rule}  {violation.message}{events}"))
        if repair:
            repaired = await verifier.repair(found)
    if as_json:
        listed = [
            {"runId": v.run_id, "rule": v.rule, "message": v.message, "eventIds": list(v.event_ids)} for v in found
        ]
        counts = {
            "runsChecked": verifier.runs_checked,
            "runsTold": verifier.runs_told,
            "runsMoving": verifier.runs_moving,
        }
        print_json({**counts, "violations": listed, "repaired": repaired})
    else:
        for run_id, done in repaired.items():
            ending = "repaired" if done else "not repaired: it moved meanwhile; try again"
            click.echo(f"{clean(run_id) or '-'}  {ending}")
        if repair and any(violation.rule in RULES for violation in found):
            click.echo("histories stay as they are: a broken rule of events is for a person to look at")
        for count, words in (
            (verifier.runs_told, "saved, imported or cut by a caller: only their keys were checked"),
            (verifier.runs_moving, "moved at every look and were not checked: run it again"),
        ):
            if count:
                click.echo(f"{count} runs {words}")
        click.echo(f"{verifier.runs_checked} runs checked, {len(found)} violations")
    return bool(found)
