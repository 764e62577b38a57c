"""`show`: one run with its steps, as a tree in the order of the plan.

A step with several dependencies stands under the deepest of them and names the others, so that each step is
there once and a diamond is still to be seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from redisflow.backend.redis.inspect import plan_of_run
from redisflow.cli.look import took
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clock, console, now_us, plain, print_json, short, status_text
from redisflow.model.states import RunState, StepState
from redisflow.settings import format_duration

if TYPE_CHECKING:
    from rich.text import Text

Edges = Mapping[str, tuple[str, ...]]


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--traceback", is_flag=True, help="Print the traceback of failed steps.")
@json_option
@server_options
@pass_options
def show(options: Options, run_id: str, traceback: bool, as_json: bool) -> None:
    """Show a run and its steps."""
    run_async(_show(options, run_id, traceback, as_json))


async def _show(options: Options, run_id: str, traceback: bool, as_json: bool) -> None:
    async with open_client(options) as client:
        run = await client.status(run_id)
        steps = await client.steps(run_id)
        plan = await plan_of_run(client.backend, run_id)
        end = await _end(client.backend, run)
    edges: Edges = plan.steps if plan else {}
    edges = {**edges, **{name: step.dependencies for name, step in steps.items() if name not in edges}}
    if as_json:
        listed = [
            steps[name].to_wire()
            if name in steps
            else {"stepId": name, "status": "pending", "dependencies": list(needs)}
            for name, needs in edges.items()
        ]
        print_json({"run": run.to_wire(), "steps": listed, "end": end})
        return
    _print_header(run, end)
    _print_tree(run, steps, edges, traceback)


async def _end(backend: Any, run: RunState) -> dict[str, Any] | None:
    """The event that ended the run, in wire form."""
    if run.completed_at is None:
        return None
    kinds = ("WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled")
    events = await backend.load_events(run.workflow_slug, run.run_id, "workflow", types=kinds)
    return events[-1].to_wire() if events else None


def _print_header(run: RunState, end: dict[str, Any] | None) -> None:
    out = console()
    head = plain(f"{run.workflow_slug}  {run.run_id}  ", "bold")
    head.append_text(status_text(run.status))
    out.print(head)
    facts = [("created", clock(run.created_at)), ("took", took(run))]
    if run.available_at > now_us() and run.started_at is None:
        facts.append(("starts", clock(run.available_at)))
    if (run.workflow_attempt_number or 1) > 1:
        facts.append(("workflow attempt", str(run.workflow_attempt_number)))
    facts += [
        ("priority", str(run.priority or "")), ("tags", ", ".join(run.tags or ())),
        ("key", run.idempotency_key or ""), ("timeout", format_duration(run.timeout) if run.timeout else ""),
        ("input", short(run.input or "", 100)),
    ]  # fmt: skip
    if end is not None:
        error = end.get("error") or {}
        facts += [
            ("output", short(end.get("output") or "", 100)), ("reason", short(end.get("reason") or "", 100)),
            ("error", short(": ".join(filter(None, (error.get("name"), error.get("message")))), 200)),
        ]  # fmt: skip
    for name, value in facts:
        if value and value != "{}":
            out.print(plain(f"  {name:<9} {value}"))


def _print_tree(run: RunState, steps: Mapping[str, StepState], edges: Edges, traceback: bool) -> None:
    from rich.tree import Tree

    root = Tree(plain("steps", "dim"), guide_style="dim")
    depths: dict[str, int] = {}
    nodes: dict[str, Tree] = {}
    for name, needs in edges.items():
        above = [step for step in needs if step in nodes]
        parent = max(above, key=lambda step: depths[step]) if above else None
        depths[name] = depths[parent] + 1 if parent else 0
        label = step_line(run, name, steps.get(name))
        others = [step for step in above if step != parent]
        if others:
            label.append(f"  also needs {short(', '.join(others), 80)}", "dim")
        nodes[name] = (nodes[parent] if parent else root).add(label)
        step = steps.get(name)
        if traceback and step and step.error and step.error.stack:
            for line in step.error.stack.rstrip().split("\n"):
                nodes[name].add(plain(line, "dim"))
    console().print(root)


def step_line(run: RunState, name: str, step: StepState | None) -> Text:
    """One step in a line: state, attempts, duration, worker, and its output or error."""
    line = plain(name, "bold").append("  ")
    if step is None:
        return line.append_text(status_text("pending"))
    line.append_text(status_text(step.status))
    if step.attempt_number > 1:
        line.append(f"  attempt {step.attempt_number}")
    if step.status == "running" and step.start_time and run.completed_at is None:
        line.append(f"  for {format_duration(max(0, now_us() - step.start_time))}")
    elif step.duration is not None and step.status in ("completed", "failed"):
        line.append(f"  {format_duration(step.duration)}")
    if step.status == "scheduled" and step.available_at and step.available_at > now_us():
        line.append(f"  at {clock(step.available_at)}")
    if step.claimed_by:
        line.append_text(plain(f"  {short(step.claimed_by, 50)}", "dim"))
    if step.was_reclaimed:
        line.append_text(plain(f"  taken back from {short(step.reclaimed_from or '?', 50)}", "yellow"))
    if step.error is not None and step.status != "completed":
        line.append_text(plain(f"  {step.error.name or 'error'}: {short(step.error.message, 120)}", "red"))
    if step.output is not None and step.status == "completed":
        line.append_text(plain(f"  {short(step.output)}", "dim"))
    return line
