"""`top`: how a namespace is now, on one screen that renews itself.

Figures come from counters and indexes, so a round costs the server a few dozen reads however many runs there are, and one for
some hundred failures of the window. A round that fails keeps the screen and says so: the server may come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.health import Health, look
from redisflow.backend.redis.rollups import MINUTE, Rollups
from redisflow.cli.look import depth_json
from redisflow.cli.options import Options, json_option, open_client, pass_options, run_async, server_options
from redisflow.cli.text import clock, console, plain, print_json, short, table
from redisflow.model.analytics import ErrorsList
from redisflow.model.errors import RedisflowError, UsageError
from redisflow.settings import format_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

FAILURES = 5
BARS = " ▁▂▃▄▅▆▇█"
ROOM = 20  # lines that all but workers, queues and failures take


@dataclass
class Overview:
    """What one screen shows; times by the server's clock, µs."""

    where: str
    now_us: int
    rollups: Rollups
    health: Health
    failures: ErrorsList

    def ended(self, of: str) -> dict[str, int]:
        """Ends of runs (`Workflow`) or attempts (`Step`), by outcome."""
        kinds = ("Completed", "Failed", "Cancelled" if of == "Workflow" else "Skipped")
        return {kind.lower(): self.rollups.total(of + kind) for kind in kinds}

    def rate(self, of: str) -> float:
        """Ends a second over the last minute: this one's, and of the one before the part that is less than a minute ago."""
        kinds = (of + "Completed", of + "Failed", of + "Cancelled", of + "Skipped")
        *_, before, current = [Counter[str](), *self.rollups.by_minute]
        past = (self.now_us - self.rollups.start_us) % MINUTE / MINUTE
        return sum(current[kind] + before[kind] * (1 - past) for kind in kinds) / 60


@click.command()
@click.option("--minutes", type=click.IntRange(1, 360), default=15, show_default=True, help="How far back figures go.")
@click.option("--every", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds between rounds.")
@click.option("--once", is_flag=True, help="Print one screen and end.")
@json_option
@server_options
@pass_options
def top(options: Options, minutes: int, every: float, once: bool, as_json: bool) -> None:
    """Throughput, queues, workers and newest failures, live. Ends with q or Ctrl-C.

    With --json one JSON object, as --once.
    """
    if as_json or once:
        found = run_async(_once(options, minutes))
        if as_json:
            print_json(_json(found))
        else:
            console().print(_screen(found))
    elif not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("top needs a terminal: add --once or --json where its output is read by a program")
    else:
        with contextlib.suppress(KeyboardInterrupt):
            run_async(_live(options, minutes, every))


async def _once(options: Options, minutes: int) -> Overview:
    async with open_client(options) as client:
        return await _gather(client.backend, minutes)


async def _gather(backend: RedisBackend, minutes: int) -> Overview:
    now = await backend.now()
    rollups = await backend.get_rollups(minutes)
    return Overview(
        where=backend.settings.namespace,
        now_us=now,
        rollups=rollups,
        health=await look(backend),
        failures=await backend.get_errors_list(start_us=rollups.start_us, limit=1000),
    )


async def _live(options: Options, minutes: int, every: float) -> None:
    from rich.live import Live

    out = console()
    async with open_client(options) as client, _quit_key() as quit_asked:
        with Live(console=out, screen=True, auto_refresh=False, transient=True) as live:
            found: Overview | None = None
            while not quit_asked.is_set():
                trouble = ""
                try:
                    found = await _gather(client.backend, minutes)
                except RedisflowError as error:
                    if found is None:
                        raise
                    trouble = str(error)
                live.update(_screen(found, height=out.height, trouble=trouble), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(every):
                        await quit_asked.wait()


@asynccontextmanager
async def _quit_key() -> AsyncIterator[asyncio.Event]:
    """Set once q is pressed, or stdin ends; keys are not shown meanwhile."""
    loop, asked, stdin = asyncio.get_running_loop(), asyncio.Event(), sys.stdin.fileno()

    def pressed() -> None:
        keys = os.read(stdin, 64)
        if not keys or b"q" in keys.lower():
            loop.remove_reader(stdin)
            asked.set()

    with _unbuffered(stdin):
        loop.add_reader(stdin, pressed)
        try:
            yield asked
        finally:
            loop.remove_reader(stdin)


@contextmanager
def _unbuffered(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _screen(found: Overview, *, height: int | None = None, trouble: str = "") -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    quits = "" if height is None else "  q quits"
    round_ago = found.health.round_ago_us
    reclaimer = "no reclaimer has run" if round_ago is None else f"reclaimer's round {format_duration(round_ago)} ago"
    head = Text.assemble(
        ("redisflow top", "bold"), "  namespace ", plain(found.where, "bold cyan"),
        plain(f"  {clock(found.now_us)}  last {found.rollups.minutes} min"), plain(quits, "dim"),
    )  # fmt: skip
    server = plain(f"Redis answers in {format_duration(found.health.round_trip_us)}, {reclaimer}", "dim")
    parts: list[RenderableType] = [head, server, plain(trouble and f"not answered: {short(trouble, 150)}", "bold red")]
    room = None if height is None else max(3, (height - ROOM) // 3)
    for title, rows in (
        ("", _throughput(found)),
        ("", _times(found)),
        ("queues", _queue_rows(found, room)),
        ("workers", _worker_rows(found, room)),
        ("newest failures", _failure_rows(found)),
    ):
        if title:
            parts.append(plain(title, "bold"))
        parts += [rows, plain("")]
    return Group(*parts)


def _throughput(found: Overview) -> RenderableType:
    rows = []
    for name, of, begun in (("runs", "Workflow", "RunSubmitted"), ("steps", "Step", "StepStarted")):
        ends = found.ended(of)
        completed, failed, other = ends.values()
        rate = _percent(completed, completed + failed)
        line = _sparkline([types[f"{of}Completed"] for types in found.rollups.by_minute[-30:]])
        rows.append(
            (plain(name, "bold"), found.rollups.total(begun), plain(completed, "green"), plain(failed, "red" if failed else ""),
             other, rate, f"{found.rate(of):.1f}/s", plain(line, "green"))
        )  # fmt: skip
    columns = (
        "",
        ">begun",
        ">completed",
        ">failed",
        ">cancelled or skipped",
        ">success",
        ">ended now",
        "completed a minute",
    )
    return table(columns, rows)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "–"


def _sparkline(values: list[int]) -> str:
    most = max(values, default=0) or 1
    return "".join(BARS[-(-value * (len(BARS) - 1) // most)] for value in values)


def _times(found: Overview) -> RenderableType:
    rows = [
        (plain(name, "bold"), *(format_duration(of.percentile(q)) if of.count else "–" for q in (0.5, 0.95, 0.99)))
        for name, of in found.rollups.spreads.values()
    ]
    return table(("", ">median", ">p95", ">p99"), rows)


def _more(rows: list[Any], room: int | None) -> tuple[list[Any], RenderableType | None]:
    if room is None or len(rows) <= room:
        return rows, None
    return rows[: room - 1], plain(f"… and {len(rows) - room + 1} more", "dim")


def _listed(columns: tuple[str, ...], rows: list[Any], room: int | None, nothing: str) -> RenderableType:
    from rich.console import Group

    if not rows:
        return plain(nothing, "dim")
    shown, rest = _more(rows, room)
    made = table(columns, shown)
    return made if rest is None else Group(made, rest)


def _queue_rows(found: Overview, room: int | None) -> RenderableType:
    rows = [
        (depth.queue, depth.level, plain(depth.due, "bold" if depth.due else ""), depth.delayed, depth.running,
         "–" if depth.oldest_us is None else format_duration(depth.oldest_us), depth.idle)
        for depth in found.health.queues
    ]  # fmt: skip
    columns = ("queue", ">priority", ">due", ">delayed", ">running", ">oldest due", ">idle workers")
    return _listed(columns, rows, room, "every queue is empty")


def _worker_rows(found: Overview, room: int | None) -> RenderableType:
    rows = []
    for worker in sorted(found.health.workers, key=lambda worker: str(worker.get("id", ""))):
        slots, running = int(worker.get("concurrency", 0)), int(worker["running"])
        busy = -(-running * 10 // slots) if slots else 0
        bar = plain("█" * busy, "yellow").append("·" * (10 - busy), style="dim")
        late = "red" if worker["seenAgoUs"] > 15_000_000 else ""
        queues = ", ".join(worker.get("queues", ()))
        ago = plain(format_duration(worker["seenAgoUs"]), late)
        rows.append((str(worker.get("id", "?")), f"{running}/{slots}", bar, ago, short(queues, 40)))
    return _listed(("worker", ">slots", "", ">heartbeat ago", "queues"), rows, room, "none is alive")


def _newest(found: Overview) -> list[Any]:
    return sorted(found.failures.errors, key=lambda group: -group.last_seen)[:FAILURES]


def _failure_rows(found: Overview) -> RenderableType:
    rows = [
        (clock(group.last_seen), group.count, plain(f"{group.error_name}: {short(group.error_message, 90)}", "red"))
        for group in _newest(found)
    ]
    return _listed(("last", ">failures", "error"), rows, None, "none")


def _json(found: Overview) -> dict[str, object]:
    health, rollups = found.health, found.rollups
    return {
        "namespace": found.where, "timeUs": found.now_us, "startUs": rollups.start_us, "minutes": rollups.minutes,
        "runs": {"submitted": rollups.total("RunSubmitted"), **found.ended("Workflow")},
        "steps": {"started": rollups.total("StepStarted"), **found.ended("Step"),
                  "retried": rollups.total("StepRetrying"), "reclaimed": rollups.total("StepReclaimed")},
        **{name: of.to_json() for name, (_, of) in rollups.spreads.items()},
        "queues": [depth_json(depth) for depth in health.queues],
        "workers": health.workers,
        "reclaimerRoundAgoUs": health.round_ago_us, "redisRoundTripUs": health.round_trip_us,
        "failures": [
            {"fingerprint": group.fingerprint, "name": group.error_name, "message": group.error_message,
             "count": group.count, "lastUs": group.last_seen}
            for group in _newest(found)
        ],
    }  # fmt: skip
