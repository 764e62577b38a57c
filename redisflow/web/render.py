"""From values to HTML: the template environment, and how times, durations, statuses and payloads are written.

Everything is escaped by Jinja; what comes out of runs is never marked safe. Control characters, and those that turn the direction
of the text, are shown by their code, so that no payload can pass for something else. A large payload is cut, with a link to all
of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from redisflow import __version__
from redisflow.settings import format_duration
from redisflow.web.desk import desk_of
from redisflow.web.security import csrf_token, current_user, may_write

CUT: Final = 4_000
"""Characters of a payload on a page."""
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

GLYPHS: Final = {
    "pending": "○", "scheduled": "◷", "waiting": "◷", "running": "▶", "completed": "✓", "failed": "✕", "skipped": "⤼",
    "cancelled": "⊘", "stopped": "⊘", "reclaimed": "↺", "released": "↺",
}  # fmt: skip
"""A sign for each status, so that none is told by its colour alone."""
NAV: Final = (
    ("overview", "/", "Overview"), ("runs", "/runs", "Runs"), ("errors", "/errors", "Errors"),
    ("workflows", "/workflows", "Workflows"), ("queues", "/queues", "Queues"), ("workers", "/workers", "Workers"),
)  # fmt: skip
WINDOWS: Final = {"15m": 900, "1h": 3_600, "6h": 21_600, "24h": 86_400, "7d": 604_800}
"""Windows of time that pages offer, in seconds."""


def clean(value: object) -> str:
    """Text with every character that would act or hide replaced by its code."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", str(value))


def moment(micros: int | None) -> datetime | None:
    """A time, in UTC; None where it is none that a calendar has."""
    try:
        return None if micros is None else datetime.fromtimestamp(micros / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def iso(micros: int | None) -> str:
    """A time for `<time datetime>`."""
    at = moment(micros)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z" if at else ""


def clock(micros: int | None) -> str:
    """A time for a person, to the ms, in UTC; the script shows it in the browser's zone."""
    at = moment(micros)
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC" if at else ("" if micros is None else str(micros))


def duration(micros: float | None) -> str:
    """A duration for a person."""
    return "" if micros is None else format_duration(max(0, micros)).replace("µs", " µs").replace("ms", " ms")


def exact(micros: int) -> str:
    """A duration to the µs, so that those of a row add up to the whole before one's eyes."""
    return f"{micros / 1_000:,.3f} ms" if micros < 1_000_000 else f"{micros / 1_000_000:,.6f} s"


def pretty(text: str | None) -> str:
    """JSON text, indented, in which an escape stands for every character that would hide; text that is none as it is."""
    if text is None:
        return ""
    if len(text) > CUT * 4:
        return text
    try:
        return clean(json.dumps(json.loads(text), ensure_ascii=False, indent=2))
    except (ValueError, RecursionError):
        return text


def unquoted(text: str) -> str:
    """A JSON value as a person reads it: a text without its quotes."""
    return str(json.loads(text)) if text.startswith('"') else text


def cut(text: str, limit: int = CUT) -> tuple[str, bool]:
    """The beginning of a text, and whether there is more."""
    return clean(text[:limit]), len(text) > limit


def short(value: object, limit: int = 80) -> str:
    """A text in one line."""
    line = " ".join(clean(str(value)[: limit * 4]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def query(base: Mapping[str, Any], **changes: Any) -> str:
    """A query string of a page's parameters with some changed; None leaves one out."""
    found = {name: value for name, value in {**base, **changes}.items() if value not in (None, "", [], ())}
    return "?" + urlencode(found, doseq=True) if found else ""


def make_environment() -> Environment:
    """The templates, with our filters."""
    environment = Environment(
        loader=PackageLoader("redisflow.web"), autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        clean=clean, iso=iso, clock=clock, duration=duration, exact=exact, pretty=pretty, unquoted=unquoted, cut=cut, short=short,
        glyph=lambda status: GLYPHS.get(status, "•"), number=lambda value: f"{value:,}",
    )  # fmt: skip
    environment.globals.update(nav=NAV, windows=WINDOWS, query=query, version=__version__)
    return environment


def respond(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page."""
    desk, user = desk_of(request), current_user(request)
    html = desk.templates.get_template(template).render(
        user=user, can_write=user is not None and may_write(desk, user), csrf=csrf_token(request),
        signs_in=desk.options.tokens is not None, read_only=desk.options.read_only,
        namespace=desk.client.settings.namespace, flash=request.session.pop("flash", None), path=request.url.path,
        **values,
    )  # fmt: skip
    return HTMLResponse(html, status)


def part(request: Request, template: str, **values: Any) -> str:
    """A part of a page that is the same for every user: it holds no form."""
    return desk_of(request).templates.get_template(template).render(**values)
