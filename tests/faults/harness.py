"""What the fault tests share: worker processes, short thresholds, and what must be true of runs in the end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redisflow import Client, Run, Settings

ROOT = Path(__file__).parent.parent.parent
SHORT = {"stale_after": 500_000, "heartbeat_interval": 100_000, "reclaim_interval": 50_000}


@contextmanager
def worker_process(settings: Settings, concurrency: int = 20, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A worker of `flows_worker` with short thresholds; killed at the end."""
    given = {
        "PYTHONPATH": str(ROOT), "REDISFLOW_URL": settings.url or "",
        "REDISFLOW_NAMESPACE": settings.namespace,
        "REDISFLOW_STALE_AFTER": "500ms", "REDISFLOW_HEARTBEAT_INTERVAL": "100ms", **environment,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "flows_worker.py"), str(concurrency)], text=True, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **given},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def is_calm(client: Client) -> bool:
    meta = await client.backend.client.hmget(client.backend.partitions[0].meta, "calm", "tick")
    return all(meta) and int(meta[0]) <= int(meta[1])


async def wire_of(client: Client, run_id: str) -> list[dict[str, Any]]:
    return await client.backend.load_wire_events(run_id)


async def is_running(run: Run[Any]) -> bool:
    return (await run.status()).status == "running"


async def ends_once(client: Client, runs: list[Run[Any]], completions: int) -> None:
    """Each run completed, with so many steps, each recorded once."""
    for run in runs:
        types = Counter(event["type"] for event in await wire_of(client, run.id))
        assert (types["StepCompleted"], types["WorkflowCompleted"]) == (completions, 1), types


async def more_than(client: Client, count: int) -> bool:
    return (await client.runs(status=["completed"], limit=1))[1] > count


async def has(client: Client, run: Run[Any], kind: str) -> bool:
    return any(event["type"] == kind for event in await wire_of(client, run.id))


def line_with_any(process: subprocess.Popen[str], words: tuple[str, ...]) -> str:
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if any(word in line for word in words):
            return line
    raise AssertionError(f"none of {words} in {seen}")
