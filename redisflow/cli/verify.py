"""`verify`: holds every key against the events it was derived from, and mends what differs if told to."""

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


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN...]")
@click.option("--repair", is_flag=True, help="Make the keys of runs that differ anew from events.")
@json_option
@server_options
@pass_options
def verify(options: Options, run_ids: tuple[str, ...], repair: bool, as_json: bool) -> None:
    """Check that every key is what the events imply.

    Without RUN checks all runs and sets. Safe while workers run. Exits with 1 where something differs, also
    if it was repaired.
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
            for run_id in dict.fromkeys(violation.run_id for violation in found if violation.run_id):
                repaired[run_id] = await verifier.repair(run_id)
    if as_json:
        listed = [
            {"runId": v.run_id, "rule": v.rule, "message": v.message, "eventIds": list(v.event_ids)} for v in found
        ]
        print_json({"runsChecked": verifier.runs_checked, "violations": listed, "repaired": repaired})
    else:
        for run_id, done in repaired.items():
            ending = "repaired" if done else "not repaired: it moved or is gone; try again"
            click.echo(f"{clean(run_id)}  {ending}")
        click.echo(f"{verifier.runs_checked} runs checked, {len(found)} violations")
    return bool(found)
