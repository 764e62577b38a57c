"""workers and versions: who runs what, and what it was."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path

from redisflow import __version__
from redisflow.backend.redis import RedisBackend
from redisflow.cli.load import load_module, workflows_in
from redisflow.client import Client
from redisflow.model.states import GitInfo, WorkflowVersion
from redisflow.settings import Settings
from tests.cli.conftest import Call, Service
from tests.conftest import eventually, until

ORDER = '{"cents": 5}'


def test_workers(rf: Call, shop_worker: Service) -> None:
    until(lambda: rf("workers", "--json").json["workers"])
    told = rf("workers", "--json").json
    (worker,) = told["workers"]
    assert (worker["state"], worker["queues"], worker["workflows"]) == ("idle", ["shop"], ["shop"])
    assert (worker["pid"], worker["version"], worker["activeSteps"]) == (shop_worker.process.pid, __version__, [])
    assert 0 <= worker["seenAgoUs"] < 30_000_000
    assert (told["totalActiveWorkers"], told["staleThresholdUs"]) == (0, 30_000_000)
    head, row = rf("workers").out.splitlines()
    assert head.split()[:5] == ["worker", "host", "version", "queues", "slots"]
    assert row.split()[0] == worker["workerId"]
    assert row.split()[-1] == "idle"


async def test_a_running_and_a_stale_worker(rf: Call, settings: Settings, registered: None) -> None:
    run_id = (await asyncio.to_thread(rf, "submit", "shop", ORDER)).out.strip()
    backend = RedisBackend(settings)
    await backend.initialize()
    try:
        claim = await backend.claim_step(run_id, "price", "w\x1b-1", slot_index=0, worker_concurrency=3)
        assert claim is not None
        told = (await asyncio.to_thread(rf, "workers", "--json")).json
        (worker,) = told["workers"]
        assert (worker["state"], worker["workerConcurrency"], told["totalRunningSteps"]) == ("running", 3, 1)
        assert "host" not in worker
        assert [step["stepId"] for step in worker["activeSteps"]] == ["price"]
        row = (await asyncio.to_thread(rf, "workers")).out.splitlines()[1].split()
        assert (row[0], row[-1]) == ("w\\x1b-1", "running")
        await backend.complete_step(claim, "1")
        await eventually(lambda: _after(backend, 2_000))
        none = await asyncio.to_thread(rf, "workers", "--stale-after", "1ms")
        assert "no worker was seen in the last 1.0ms" in none.out
        every = (await asyncio.to_thread(rf, "workers", "--stale-after", "1ms", "--all", "--json")).json
        assert [(one["state"], one["totalStepsProcessed"]) for one in every["workers"]] == [("stale", 1)]
    finally:
        await backend.close()


async def _after(backend: RedisBackend, micros: int) -> bool:
    worker = (await backend.get_active_workers(include_inactive=True)).workers[0]
    return await backend.now() - worker.last_seen_us > micros


def test_no_worker(rf: Call) -> None:
    assert "no worker was seen in the last 30.00s: start one" in rf("workers").out
    assert "no worker has ever run here" in rf("workers", "--all").out
    assert rf("workers", "--json").json["workers"] == []
    assert "--stale-after" in rf("workers", "--stale-after", "soon").error


def git(folder: Path, *arguments: str) -> None:
    own = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *own, *arguments], cwd=folder, check=True, capture_output=True)


async def test_versions(rf: Call, flow: Path, tmp_path: Path, settings: Settings) -> None:
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-b", "trunk")
    git(tmp_path, "add", ".gitignore", flow.name)
    git(tmp_path, "commit", "-m", "first")
    await register(settings, flow)
    flow.write_text(flow.read_text().replace("def stock", "def stocked").replace("stock: int", "stocked: int"))
    await register(settings, flow)
    await asyncio.to_thread(look_at_versions, rf)


def look_at_versions(rf: Call) -> None:
    new, old = rf("versions", "shop", "--json").json
    assert (new["versionNumber"], new["stepManifest"]) == (2, ["price", "stocked", "bill"])
    assert (old["versionNumber"], old["git"]["branch"], old["git"]["dirty"]) == (1, "trunk", False)
    assert old["git"]["commit"] == new["git"]["commit"]
    head, first, second = rf("versions", "shop").out.splitlines()
    assert head.split() == ["number", "version", "commit", "branch", "created", "steps"]
    assert first.split()[:4] == ["2", new["versionId"][7:19], new["git"]["commit"][:12], "trunk"]
    assert second.split()[:4] == ["1", old["versionId"][7:19], old["git"]["commit"][:12], "trunk"]
    assert "price, stock, bill" in second
    assert [version["versionNumber"] for version in rf("versions", "shop", "--limit", "1", "--json").json] == [2]


async def register(settings: Settings, flow: Path) -> None:
    """As a worker does when it starts."""
    sys.modules.pop(flow.stem, None)
    importlib.invalidate_caches()
    async with Client(settings=settings) as client:
        for found in workflows_in(load_module(str(flow))):
            await client.backend.register_plan(found.plan, location=found.location)


async def test_a_version_from_elsewhere(rf: Call, settings: Settings) -> None:
    backend = RedisBackend(settings)
    await backend.initialize()
    try:
        await backend.create_workflow_version(
            WorkflowVersion(
                workflow_slug="other", version_id="v\x1b7", version_number=1, created_at=1, step_manifest=("a",),
                total_steps=1, git=GitInfo(commit="c" * 40, dirty=True, branch="b\x1b[0m"),
            )
        )  # fmt: skip
    finally:
        await backend.close()
    row = (await asyncio.to_thread(rf, "versions", "other")).out.splitlines()[1].split()
    assert row[:5] == ["1", "v\\x1b7", "c" * 12, "(changed)", "b\\x1b[0m"]


def test_versions_of_nothing(rf: Call, registered: None) -> None:
    done = rf("versions", "nosuch")
    assert "workflow 'nosuch' is not registered; known: shop" in done.error
    assert done.code == 2
    assert "workflow_slug='a b' is not allowed" in rf("versions", "a b").error
