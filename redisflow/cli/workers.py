"""`workers`: who works now, from two sources side by side.

What a worker runs and has done follows from events and leases, and so is known of any caller that claims steps. Host, queues and
version are what it says of itself with each heartbeat, and are missing for one that sends none.
"""

from __future__ import annotations

from typing import Any

import click

from redisflow.backend.redis.inspect import workers as look_at_workers
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.submit import DURATION
from redisflow.cli.text import console, print_json, status_text, table
from redisflow.settings import format_duration

Row = dict[str, Any]
SAID = ("host", "pid", "version", "queues", "workflows")


@click.command()
@click.option("--all", "inactive", is_flag=True, help="Those too that have not been seen for longer.")
@click.option(
    "--stale-after", type=DURATION, default="30s", show_default=True, help="How long ago an active one may be seen."
)
@json_option
@server_options
@pass_options
def workers(options: Options, /, inactive: bool, stale_after: int, as_json: bool) -> None:
    """List workers that run a step or were seen lately, the busiest first."""
    found = run_async(_workers(options, inactive, stale_after))
    if as_json:
        print_json(found)
        return
    rows = [
        (row["workerId"], row.get("host"), row.get("version"), ", ".join(row.get("queues", ())),
         row.get("workerConcurrency"), row["currentlyRunningSteps"], format_duration(row["seenAgoUs"]),
         status_text(row["state"]))
        for row in found["workers"]
    ]  # fmt: skip
    if rows:
        columns = ("worker", "host", "version", "queues", ">slots", ">running", ">seen ago", "state")
        console().print(table(columns, rows))
    elif inactive:
        click.echo("no worker has ever run here: start one with `redisflow worker flow.py`")
    else:
        click.echo(
            f"no worker was seen in the last {format_duration(stale_after)}: start one with `redisflow worker flow.py`, "
            "or see --all"
        )


async def _workers(options: Options, inactive: bool, stale_after: int) -> Row:
    async with open_client(options) as client:
        backend = client.backend
        found = await backend.get_active_workers(stale_after, include_inactive=inactive)
        now = await backend.now()
        said = {one["id"]: one for one in await look_at_workers(backend, now) if "id" in one}
    rows = []
    for worker in found.workers:
        known = said.get(worker.worker_id, {})
        age = max(0, now - worker.last_seen_us)
        state = "running" if worker.currently_running_steps else "idle"
        row = {"state": "stale" if age > stale_after else state, "seenAgoUs": age, **worker.to_wire()}
        rows.append({**row, **{name: known[name] for name in SAID if name in known}})
    return {**found.to_wire(), "workers": rows}
