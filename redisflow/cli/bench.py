"""`bench`: how fast redisflow is on this server, from here.

It works in a namespace of its own with a random name, and deletes it at the end, also after an error, Ctrl-C or SIGTERM. What else
lies on the server is neither read nor written; it only has to share the server's time and, for a moment, its memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import signal
import statistics
from collections.abc import Sequence
from typing import Any

import click

from redisflow.backend.redis.purge import purge
from redisflow.cli.measures import claims, drains, pick_ups, submits
from redisflow.cli.options import Options, json_option, open_client, pass_options, run_async, server_options
from redisflow.cli.text import console, print_json, table
from redisflow.client import Client
from redisflow.define import Workflow

PICK_UPS = 200
WARM_UP = 10
PATIENCE = 3.0
"""Seconds for what is measured to end before it is asked again."""


@click.command()
@click.option(
    "--count", type=click.IntRange(100, 1_000_000), default=5_000, show_default=True,
    help="Runs of each measure; each takes about 2 KB of the server's memory until the end.",
)  # fmt: skip
@json_option
@server_options
@pass_options
def bench(options: Options, count: int, as_json: bool) -> None:
    """Measure the server: submit, claims, drain, latency.

    Works in a namespace of its own and deletes it at the end; other data of the server is left alone. The worker is part of this
    process. Takes some seconds, in which the server is busy.
    """
    found = run_async(_bench(options, count))
    if as_json:
        print_json(found)
    else:
        _print(found)


async def _bench(options: Options, count: int) -> dict[str, Any]:
    """The figures; the namespace is gone when this ends, however it ends.

    Signals do not interrupt by themselves here: they would reach the opening or the deletion of the namespace too.
    """
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    own = dataclasses.replace(options, namespace=f"redisflow-bench-{secrets.token_hex(8)}")
    async with open_client(own) as client:
        click.echo(f"in the namespace {client.backend.namespace}, deleted at the end", err=True)
        measuring, stopped = asyncio.create_task(_measure(client, count)), asyncio.create_task(stopping.wait())
        try:
            await asyncio.wait((measuring, stopped), return_when=asyncio.FIRST_COMPLETED)
            if stopped.done():
                raise click.Abort
            return await measuring
        finally:
            stopped.cancel()
            while not measuring.done():  # wait_for of Python 3.11, with which redis-py writes, may lose one
                measuring.cancel()
                await asyncio.wait((measuring,), timeout=PATIENCE)
            await purge(client.backend)


async def _measure(client: Client, count: int) -> dict[str, Any]:
    info = client.backend.info
    trips = [await _round_trip(client) for _ in range(PICK_UPS)]
    waits = await pick_ups(client, "bench-pick-up", WARM_UP + PICK_UPS)
    submitted, took = await drains(client, "bench-drain", count)
    claimed: Workflow[Any, Any] = Workflow("bench-claim")

    @claimed.step
    async def never() -> None:
        """Claimed only."""

    await submits(client, claimed, count)
    seconds = await claims(client.backend, claimed.slug, count)
    return {
        "server": {
            "version": info.get("valkey_version") or info.get("redis_version"), "aof": bool(info.get("aof_enabled")),
            "partitions": len(client.backend.partitions),
        },
        "count": count,
        "roundTripMs": _spread(trips),
        "pickUpMs": _spread(waits[WARM_UP:]),
        "submitsPerSecond": round(count / submitted),
        "drainedPerSecond": round(count / took),
        "claimsPerSecond": round(count / seconds),
    }  # fmt: skip


async def _round_trip(client: Client) -> float:
    began = asyncio.get_running_loop().time()
    await client.backend.server_time()
    return asyncio.get_running_loop().time() - began


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in ms."""
    cuts = statistics.quantiles(seconds, n=100)
    return {"p50": round(statistics.median(seconds) * 1000, 3), "p99": round(cuts[98] * 1000, 3)}


def _print(found: dict[str, Any]) -> None:
    server, trip, wait = found["server"], found["roundTripMs"], found["pickUpMs"]
    rows = [
        ("submit_many", f"{found['submitsPerSecond']:,}", "runs/s"),
        ("drain, one worker", f"{found['drainedPerSecond']:,}", "steps/s"),
        ("claims, one line", f"{found['claimsPerSecond']:,}", "claims/s"),
        ("pick-up, idle, p50", f"{wait['p50']:.2f}", "ms from submit to the step's first line"),
        ("pick-up, idle, p99", f"{wait['p99']:.2f}", "ms"),
        ("round trip, p50", f"{trip['p50']:.2f}", "ms"),
        ("round trip, p99", f"{trip['p99']:.2f}", "ms"),
    ]
    console().print(table(("measure", ">figure", "unit"), rows))
    aof = "with" if server["aof"] else "without"
    click.echo(
        f"{found['count']:,} runs a measure, server {server['version']} {aof} AOF, {server['partitions']} partitions"
    )
