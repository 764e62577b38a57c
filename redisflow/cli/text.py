"""What is printed: text made safe (`redisflow.model.text`), and tables, times and JSON in one form.

Cells are rich `Text`, never markup.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from redisflow.model.text import UNSAFE
from redisflow.model.text import clean as clean

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_PIPE_WIDTH = 4_000

STYLES: Final = {
    "pending": "dim", "scheduled": "cyan", "running": "yellow", "completed": "green", "failed": "bold red",
    "skipped": "blue", "cancelled": "magenta", "idle": "dim", "stale": "bold red",
    "ok": "green", "warn": "yellow", "fail": "bold red",
}  # fmt: skip
"""Colour of a status."""


def short(text: str, limit: int = 60) -> str:
    """The text, clean, in one line of at most `limit` characters."""
    line = clean(text[: limit * 4].replace("\n", " "))
    return line if len(line) <= limit and len(text) <= limit * 4 else line[: limit - 1] + "…"


def plain(value: object, style: str = "") -> Text:
    """A cell: text without markup or control characters; "" for None."""
    from rich.text import Text

    return Text("" if value is None else clean(str(value)), style=style)


def status_text(status: str) -> Text:
    """A status in its colour."""
    return plain(status, STYLES.get(status, ""))


def console(stderr: bool = False) -> Console:
    """A console for one command; wide where stdout is no terminal, so that nothing is cut in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else _PIPE_WIDTH)


def table(columns: Iterable[str], rows: Iterable[Sequence[object]]) -> Table:
    """A plain table; cells are folded rather than cut, columns whose name starts with `>` go to the right."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), overflow="fold", justify="right" if right else "left")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else plain(cell) for cell in row))
    return made


def clock(micros: int | None, *, millis: bool = False) -> str:
    """A time of day for a person, with the date where it is not today's."""
    if micros is None:
        return ""
    try:
        at = datetime.fromtimestamp(micros / 1e6).astimezone()
    except (ValueError, OverflowError, OSError):  # an imported time may be anything
        return str(micros)
    form = "%H:%M:%S" if at.date() == datetime.now().astimezone().date() else "%Y-%m-%d %H:%M:%S"
    return at.strftime(form) + (f".{at.microsecond // 1000:03d}" if millis else "")


def now_us() -> int:
    """The time here, in µs."""
    return time.time_ns() // 1000


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON for a program that a person can read too: nothing in it acts on a terminal."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    if indent is not None:
        return "\n".join(_escape(line) for line in text.split("\n"))
    return _escape(text)


def _escape(text: str) -> str:
    # dumps leaves such characters in strings only, so an escape means the same
    return UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON to stdout."""
    click.echo(to_json(value, indent=indent))


def json_or_text(text: str | None) -> Any:
    """The value of a payload's JSON text; the text itself where it is none."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text
