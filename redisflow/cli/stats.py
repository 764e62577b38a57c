"""`stats`: the figures of a window of time on one page, and what commands on windows share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import click

from redisflow.backend.redis.analytics import Analytics
from redisflow.backend.redis.rollups import MOST_MINUTES, Rollups
from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.submit import DURATION
from redisflow.cli.text import clock, console, now_us, plain, print_json, short, table
from redisflow.model.analytics import AnalyticsSummary, WorkflowDuration
from redisflow.settings import format_duration

since_option = click.option(
    "--since", type=DURATION, default="24h", show_default=True, help="How far back to look, such as 90m or 7d."
)


@asynccontextmanager
async def open_figures(options: Options) -> AsyncIterator[Analytics]:
    """An open backend that answers for figures; errors as `open_client`."""
    async with open_client(options) as client:
        yield client.backend


async def window_start(figures: Analytics, since: int) -> int:
    """The time `since` µs ago by the server's clock, at least 0."""
    return max(0, await figures.now() - since)


@click.command()
@click.option("--workflow", metavar="SLUG", help="Only this workflow.")
@click.option("--step", metavar="ID", help="Only events of this step; runs have none then.")
@since_option
@click.option(
    "--minutes",
    type=click.IntRange(1, MOST_MINUTES),
    metavar="N",
    help="Only the last N minutes (at most 360), from counters instead of events: at once however many runs there are.",
)
@json_option
@server_options
@pass_options
def stats(
    options: Options, workflow: str | None, step: str | None, since: int, minutes: int | None, as_json: bool
) -> None:
    """Throughput, success, durations, retries and queues of a window of time.

    Figures are folded from the events of the window. With --minutes they come from counters that are kept a minute: exact, but for
    percentiles, which are within 3.2 %.
    """
    if minutes is not None:
        if step is not None:
            raise click.UsageError("--minutes counts no single steps: leave --step out, or use --since")
        rollups = run_async(_rollups(options, minutes))
        if as_json:
            print_json(_rollup_json(rollups, workflow))
        else:
            _print_rollups(rollups, workflow)
        return
    summary = run_async(_stats(options, workflow, step, since))
    if as_json:
        print_json(summary.to_wire())
    else:
        _print_summary(summary)


async def _stats(options: Options, workflow: str | None, step: str | None, since: int) -> AnalyticsSummary:
    async with open_figures(options) as figures:
        start = await window_start(figures, since)
        return await figures.get_analytics_summary(start_us=start, workflow_slug=workflow, step_id=step)


async def _rollups(options: Options, minutes: int) -> Rollups:
    async with open_figures(options) as figures:
        return await figures.get_rollups(minutes)


_COUNTED = {
    "runs": ("RunSubmitted", "WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled"),
    "steps": ("StepStarted", "StepCompleted", "StepFailed", "StepRetrying", "StepSkipped", "StepReclaimed"),
}


def _rollup_json(rollups: Rollups, workflow: str | None) -> dict[str, object]:
    kinds = [kind for group in _COUNTED.values() for kind in group]
    found: dict[str, object] = {
        "startUs": rollups.start_us,
        "minutes": rollups.minutes,
        "events": {kind: rollups.total(kind, workflow) for kind in kinds},
    }
    if workflow is None:  # histograms are kept over all workflows
        found["byMinute"] = [{kind: types[kind] for kind in kinds if types[kind]} for types in rollups.by_minute]
        found |= {name: spread.to_json() for name, (_, spread) in rollups.spreads.items()}
    return found


def _print_rollups(rollups: Rollups, workflow: str | None) -> None:
    out = console()
    out.print(plain(f"from {clock(rollups.start_us)}, {rollups.minutes} min", "dim"))
    for title, kinds in _COUNTED.items():
        columns = [_words(kind) for kind in kinds]
        row = [rollups.total(kind, workflow) for kind in kinds]
        out.print()
        out.print(table((title, *(f">{column}" for column in columns)), [("", *row)]))
    if workflow is None:
        spreads = [
            (name, spread.count, *(format_duration(spread.percentile(q)) for q in (0.5, 0.95, 0.99)))
            for name, spread in rollups.spreads.values()
            if spread.count
        ]
        out.print()
        out.print(table(("time", ">samples", ">median", ">p95", ">p99"), spreads))


def _words(kind: str) -> str:
    return kind.removeprefix("Run").removeprefix("Workflow").removeprefix("Step").lower()


def _print_summary(summary: AnalyticsSummary) -> None:
    out = console()
    span = summary.time_range
    out.print(plain(f"from {clock(span.start_us)} to {clock(span.end_us)}", "dim"))
    for part in (_ends(summary), _durations(summary)):
        out.print()
        out.print(part)
    out.print()
    for name, text in _facts(summary):
        out.print(plain(f"{name:<11} {text}"))


def _ends(summary: AnalyticsSummary) -> object:
    rate, speed = summary.success_rate, summary.throughput
    return table(
        ("ended", ">total", ">completed", ">failed", ">cancelled", ">skipped", ">success", ">an hour"),
        [
            ("runs", rate.total_runs, rate.successful_runs, rate.failed_runs, rate.cancelled_runs, "",
             _percent(rate.success_rate, rate.total_runs), f"{speed.runs_per_hour:.1f}"),
            ("steps", rate.total_steps, rate.successful_steps, rate.failed_steps, "", rate.skipped_steps,
             _percent(rate.step_success_rate, rate.total_steps), f"{speed.steps_per_hour:.1f}"),
        ],
    )  # fmt: skip


def _percent(value: float, total: int) -> str:
    return f"{value:.1f}%" if total else ""


def _durations(summary: AnalyticsSummary) -> object:
    return table(
        ("time", ">samples", ">min", ">average", ">median", ">p95", ">p99", ">max"),
        [
            ("wait for a worker", *_spread(summary.scheduling_latency)),
            ("step", *_spread(summary.step_duration)),
            ("run", *_spread(summary.workflow_duration)),
        ],
    )


def _spread(found: WorkflowDuration) -> tuple[object, ...]:
    if not found.count:
        return (0, *[""] * 6)
    values = (found.min_us, found.average_us, found.median_us, found.p95_us, found.p99_us, found.max_us)
    return (found.count, *map(format_duration, values))


def _facts(summary: AnalyticsSummary) -> list[tuple[str, str]]:
    """Retries, failures, workers and queues, in words."""
    retries, errors = summary.retry_analysis, summary.error_analysis
    stable, depth = summary.worker_stability, summary.queue_depth
    helped = f", {retries.retry_effectiveness_rate:.1f}% helped" if retries.total_retries else ""
    reasons = ", ".join(f"{share.failure_reason} {share.count}" for share in errors.breakdown_by_reason)
    queued = f"{depth.pending_runs} pending and {depth.running_runs} running runs"
    queued += f", {depth.scheduled_steps} scheduled and {depth.running_steps} running steps"
    if depth.oldest_scheduled_step_us is not None:
        age = now_us() - depth.oldest_scheduled_step_us
        queued += f", the oldest due for {format_duration(age)}" if age >= 0 else ""
    lost = f"{stable.total_reclamations} steps taken back from {stable.unique_workers_with_reclamations} workers"
    if stable.most_unstable_workers:
        worst = stable.most_unstable_workers[0]
        lost += f", most from {short(worst.worker_id)} ({worst.reclamation_count})"
    return [
        ("retries", f"{retries.total_retries}{helped}"),
        (
            "failures",
            f"{errors.total_failures}, {errors.unique_errors} different" + (f": {reasons}" if reasons else ""),
        ),
        ("workers", lost),
        ("queues now", queued),
    ]
