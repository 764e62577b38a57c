"""`runs`, `workflows`, `versions` and `queues`: lists."""

from __future__ import annotations

from collections.abc import Mapping

import click

from redisflow.backend.redis.inspect import QueueDepth, queue_depths
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clean, clock, console, now_us, plain, print_json, status_text, table
from redisflow.model.errors import WorkflowNotFound
from redisflow.model.states import GitInfo, RunState, WorkflowVersion
from redisflow.settings import format_duration

STATUSES = ["pending", "running", "completed", "failed", "cancelled"]


@click.command()
@click.option("--workflow", help="Only those of this workflow.")
@click.option("--status", "statuses", multiple=True, type=click.Choice(STATUSES), help="Repeated: any of them.")
@click.option("--tag", "tags", multiple=True, help="Repeated: all of them.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("--offset", type=click.IntRange(0, 1_000_000_000), default=0)
@json_option
@server_options
@pass_options
def runs(
    options: Options, /, workflow: str | None, statuses: tuple[str, ...], tags: tuple[str, ...],
    as_json: bool, **page: int,
) -> None:  # fmt: skip
    """List runs, newest first."""
    run_async(_runs(options, workflow, statuses, tags, page, as_json))


async def _runs(
    options: Options, workflow: str | None, statuses: tuple[str, ...], tags: tuple[str, ...],
    page: Mapping[str, int], as_json: bool,
) -> None:  # fmt: skip
    async with open_client(options) as client:
        found, total = await client.runs(workflow, status=statuses, tags=tags, **page)
    if as_json:
        print_json({"total": total, "runs": [run.to_wire() for run in found]})
        return
    if found:
        rows = [
            (run.run_id, run.workflow_slug, status_text(run.status), clock(run.created_at), took(run),
             run.priority or "", ", ".join(run.tags or ()))
            for run in found
        ]  # fmt: skip
        console().print(table(("run", "workflow", "status", "created", ">took", ">priority", "tags"), rows))
    click.echo(f"{len(found)} of {total} run{'' if total == 1 else 's'}")


def took(run: RunState) -> str:
    """How long a run has run; "" before its start."""
    if run.started_at is None:
        return ""
    return format_duration(max(0, (run.completed_at or now_us()) - run.started_at))


@click.command()
@json_option
@server_options
@pass_options
def workflows(options: Options, as_json: bool) -> None:
    """List registered workflows."""
    run_async(_workflows(options, as_json))


async def _workflows(options: Options, as_json: bool) -> None:
    async with open_client(options) as client:
        records = await client.backend.workflow_records()
    if as_json:
        print_json(records)
        return
    if not records:
        click.echo("no workflow is registered: start a worker with one, such as `redisflow dev flow.py`")
        return
    rows = []
    for record in records:
        steps = record["plan"]["steps"]
        names = ", ".join(step["id"] for step in steps)
        served = ", ".join(sorted({step["queue"] for step in steps}))
        version = record["version"].removeprefix("sha256:")[:12]
        rows.append((record["slug"], len(steps), names, served, version))
    console().print(table(("workflow", ">steps", "", "queues", "version"), rows))


@click.command()
@click.argument("workflow")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@json_option
@server_options
@pass_options
def versions(options: Options, workflow: str, limit: int, as_json: bool) -> None:
    """List the versions of a workflow, newest first; number 1 is the oldest."""
    found = run_async(_versions(options, workflow, limit))
    if as_json:
        print_json([version.to_wire() for version in found])
        return
    rows = [
        (version.version_number, version.version_id.removeprefix("sha256:")[:12], _commit(version.git),
         version.git.branch if version.git else "", clock(version.created_at), version.total_steps,
         ", ".join(version.step_manifest))
        for version in found
    ]  # fmt: skip
    console().print(table((">number", "version", "commit", "branch", "created", ">steps", ""), rows))


async def _versions(options: Options, workflow: str, limit: int) -> list[WorkflowVersion]:
    async with open_client(options) as client:
        found = await client.backend.list_workflow_versions(workflow, limit)
        if not found:
            raise WorkflowNotFound(workflow, await client.backend.workflow_slugs())
        return found


def _commit(git: GitInfo | None) -> str:
    return "" if git is None else git.commit[:12] + " (changed)" * git.dirty


@click.command()
@json_option
@server_options
@pass_options
def queues(options: Options, as_json: bool) -> None:
    """What is due, delayed and running in each queue, by priority."""
    run_async(_queues(options, as_json))


async def _queues(options: Options, as_json: bool) -> None:
    async with open_client(options) as client:
        depths = await queue_depths(client.backend)
    if as_json:
        print_json([depth_json(depth) for depth in depths])
        return
    if not depths:
        click.echo("every queue is empty")
        return
    rows = []
    for depth in depths:
        oldest = "" if depth.oldest_us is None else format_duration(depth.oldest_us)
        due = plain(depth.due, "bold" if depth.due else "")
        rows.append((clean(depth.queue), depth.level, due, depth.delayed, depth.running, oldest, depth.idle))
    columns = ("queue", ">priority", ">due", ">delayed", ">running", ">oldest due", ">idle workers")
    console().print(table(columns, rows))


def depth_json(depth: QueueDepth) -> dict[str, object]:
    """A queue level for a program."""
    return {
        "queue": depth.queue, "priority": depth.level, "due": depth.due, "delayed": depth.delayed,
        "running": depth.running, "oldestDueUs": depth.oldest_us, "idleWorkers": depth.idle,
    }  # fmt: skip
