"""Trace contexts that a run holds: of its submission in the metadata, of failed attempts in their StepFailed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.codec import pack, unpack

LATEST = 1000  # entries of the stream in which earlier attempts are looked for


async def submission_context(backend: RedisBackend, run_id: str) -> Mapping[str, Any]:
    """Metadata that the run was submitted with; {} where it has none."""
    key = backend.keys_of(run_id).events(run_id)
    entries = await backend.server.retry(lambda: backend.client.xrange(key, count=1))
    return dict(unpack(entries[0][1][b"data"]).get("md") or {}) if entries else {}


async def failed_attempts(backend: RedisBackend, run_id: str, step_id: str) -> list[str]:
    """Traceparents of a step's failed attempts, the oldest first."""
    key = backend.keys_of(run_id).events(run_id)
    entries = await backend.server.retry(lambda: backend.client.xrevrange(key, count=LATEST))
    failures = [
        entry for _, entry in reversed(entries)
        if entry[b"type"] == b"StepFailed" and entry[b"step"].decode() == step_id
    ]  # fmt: skip
    found = [unpack(entry[b"data"]).get("tc") for entry in failures]
    return [traceparent for traceparent in found if isinstance(traceparent, str)]


def with_traceparent(data: bytes, traceparent: str | None) -> bytes:
    """The envelope of a StepFailed that names its attempt's span; as it was where there is none."""
    return data if traceparent is None else pack({**unpack(data), "tc": traceparent})
