"""Settings of a process, read once from the environment (prefix `REDISFLOW_`) or given as arguments.

Every duration accepts text such as `500ms`, `2s`, `1m30s`, `1h`, a `timedelta`, or a number of seconds, and is kept as
integer microseconds, the unit of the whole project.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|m|h|d)")

Duration = str | int | float | timedelta
"""What a user may write for a duration: text with units, a `timedelta`, or a number of seconds."""


def parse_duration(value: Duration) -> int:
    """Turn a duration into integer microseconds.

    Args:
        value: text such as `"30s"`, `"1m30s"`, `"250ms"`; a `timedelta`; or a number of seconds.

    Raises:
        ValueError: the text is no duration, or the duration is negative.
    """
    if isinstance(value, timedelta):
        micros = round(value.total_seconds() * 1_000_000)
    elif isinstance(value, bool):
        raise ValueError(f"{value!r} is not a duration; write for example '30s'")
    elif isinstance(value, (int, float)):
        micros = round(value * 1_000_000)
    else:
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            micros = round(float(text) * 1_000_000)
        else:
            parts = _PART.findall(text)
            if not parts or _PART.sub("", text).strip():
                raise ValueError(f"{value!r} is not a duration; write for example '500ms', '30s', '1m30s' or '2h'")
            micros = round(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if micros < 0:
        raise ValueError(f"{value!r} is negative; a duration is zero or more")
    return micros


def format_duration(micros: float) -> str:
    """Write microseconds for a person: `740µs`, `12.3ms`, `4.20s`, `3m05s`, `2h04m`."""
    if micros < 1_000:
        return f"{micros:.0f}µs"
    if micros < 1_000_000:
        return f"{micros / 1_000:.1f}ms"
    seconds = micros / 1_000_000
    if seconds < 60:
        return f"{seconds:.2f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"


Micros = Annotated[int, BeforeValidator(parse_duration)]


def _span(text: str) -> Any:
    """A default duration, read like one that a user gives."""
    return Field(text, validate_default=True)


class Settings(BaseSettings):
    """All settings; each is read from `REDISFLOW_<NAME>` where no argument gives it."""

    model_config = SettingsConfigDict(env_prefix="REDISFLOW_", frozen=True, extra="ignore")

    url: str | None = Field(None, repr=False)
    """Server to use: `redis://`, `rediss://`, `unix://`, or `redis+cluster://`. None: the embedded server of this folder."""
    namespace: str = Field("redisflow", pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    """Prefix of every key; two namespaces on one server know nothing of each other."""
    partitions: int | None = Field(None, ge=1, le=1024)
    """Partitions of a namespace when it is created (default: 1 standalone, 16 on a Cluster); fixed from then on."""
    stale_after: Micros = _span("30s")
    """A running step whose last heartbeat is longer ago than this is taken back from its worker."""
    heartbeat_interval: Micros = _span("5s")
    """How often a worker renews its leases."""
    reclaim_interval: Micros = _span("1s")
    """How often the reclaimer looks."""
    retention: Micros = _span("7d")
    """How long a finished run is kept."""
    concurrency: int = Field(100, ge=1, le=10_000)
    """Steps that one worker process runs at once."""
    drain_timeout: Micros = _span("20s")
    """How long a stopping worker lets its steps finish before it gives them back."""
    max_payload_bytes: int = Field(1_048_576, ge=1_024, le=64 * 1_048_576)
    """Largest input, output or checkpoint, as JSON text."""
    retry_deadline: Micros = _span("2m")
    """How long a call rides out an unreachable, loading or read-only server before it gives up."""
    durability: Literal["acknowledged", "replicated"] = "acknowledged"
    """When a submit returns: `acknowledged` by the primary, or `replicated` to at least one replica too (WAIT)."""
    replication_timeout: Micros = _span("1s")
    """How long a replicated submit waits for the replica before it says that it is not confirmed."""
    step_removed_after: Micros = _span("1h")
    """How long a step whose code no worker has is handed back before it fails as `step-removed`."""
    home: Path = Path(".redisflow")
    """Folder of the embedded server and of the spool files."""
    metrics_port: int | None = Field(None, ge=0, le=65_535)
    """Port of `/metrics` of a worker or reclaimer; 0 takes a free one. None: no metrics."""
    metrics_host: str = "127.0.0.1"
    """Address that `/metrics` listens on."""
    log_format: str = Field("text", pattern="^(text|json)$")
    """Form of log lines: `text` or `json`."""
