"""Step bodies that misbehave: the worker, its heartbeat and the other steps go on, or another worker takes over."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from redisflow import Client, Reclaimer, Worker, Workflow
from tests.cli.conftest import environment, service
from tests.conftest import eventually
from tests.faults.harness import ends_once, has, is_running, line_with_any, worker_process
from tests.flows_worker import brisk, loud, rough


async def test_a_body_that_holds_the_interpreters_lock_past_its_lease(quick: Client, reclaimer: Reclaimer) -> None:
    """No thread of that process can send a heartbeat, so the step is another's, and the late outcome is refused."""
    run = await quick.submit(rough, {"do": "gil", "us": 3_000_000})
    with worker_process(quick.settings) as victim:
        await eventually(lambda: is_running(run), 20)
        await eventually(lambda: has(quick, run, "StepReclaimed"))
        async with Worker(quick, [rough], worker_id="heir"):
            assert await run.result(timeout=10) == 2
        refused = await asyncio.to_thread(line_with_any, victim, ("not recorded", "stopping a step"))
        assert any(word in refused for word in ("RUN_ENDED", "STALE", "CONFLICT"))
        assert victim.poll() is None
    await ends_once(quick, [run], 1)


async def test_a_body_that_ends_its_process(quick: Client, reclaimer: Reclaimer) -> None:
    run = await quick.submit(rough, {"do": "exit"})
    with worker_process(quick.settings) as victim:
        assert await asyncio.to_thread(victim.wait, 20) == 3
    async with Worker(quick, [rough]):
        assert await run.result(timeout=10) == 2
    await ends_once(quick, [run], 1)


async def test_a_body_that_ends_every_worker_is_given_up(quick: Client, reclaimer: Reclaimer) -> None:
    """Three crashes are forgiven, the fourth is the step's fault: else one poisoned run would take down a fleet."""
    run = await quick.submit(always_deadly, None)
    backend = quick.backend
    for _ in range(4):
        await eventually(lambda: _due(backend, run.id))
        claim = await backend.claim_step(run.id, "die", "dead.worker")
        assert claim is not None
        await eventually(lambda attempt=claim.attempt_number: _reclaimed(quick, run.id, attempt))
    state = await run.status()
    assert state.status == "failed"
    events = await backend.load_wire_events(run.id)
    assert [event["type"] for event in events].count("StepReclaimed") == 4
    assert (events[-1]["type"], events[-1]["failureReason"]) == ("WorkflowFailed", "worker-crash")


always_deadly = Workflow("deadly")


@always_deadly.step
async def die() -> None: ...


async def _due(backend: Any, run_id: str) -> bool:
    return bool(await backend.is_step_claimable("deadly", run_id, "die"))


async def _reclaimed(client: Client, run_id: str, attempt: int) -> bool:
    events = await client.backend.load_wire_events(run_id)
    return any(event["type"] == "StepReclaimed" and event["attemptNumber"] == attempt for event in events)


LEAKY = """
import asyncio, threading
from redisflow import Workflow

leaky = Workflow("leaky", output=int)

@leaky.step(export=True)
async def leak() -> int:
    for _ in range(50):
        threading.Thread(target=threading.Event().wait).start()
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
    return threading.active_count()
"""


async def test_threads_that_a_body_leaves_behind_do_not_hold_up_a_deploy(client: Client, tmp_path: Path) -> None:
    flow = tmp_path / "leaky_flow.py"
    flow.write_text(LEAKY)
    url, namespace = client.settings.url or "", client.settings.namespace
    env = environment(REDISFLOW_URL=url, REDISFLOW_NAMESPACE=namespace)
    with service("worker", str(flow), cwd=tmp_path, env=env) as worker:
        await asyncio.to_thread(worker.expect, "slots")
        assert await (await client.submit("leaky")).result(timeout=20) > 50
        worker.signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 20) == 0
        assert "threads that steps started still run; ending without them" in worker.text


@pytest.mark.slow
@pytest.mark.parametrize("flow", [rough, loud], ids=["thread", "process"])
async def test_100_megabytes_of_output_fill_no_memory(quick: Client, flow: Any) -> None:
    size = 100_000_000
    with worker_process(quick.settings) as worker:
        warm = [await quick.submit(rough, {"do": "shout", "bytes": 200_000}), await quick.submit(loud, 200_000)]
        for run in warm:
            assert await run.result(timeout=20) == 1
        process = psutil.Process(worker.pid)
        before = process.memory_info().rss
        run = await quick.submit(flow, {"do": "shout", "bytes": size} if flow is rough else size)
        peak, waiting = before, asyncio.create_task(run.result(timeout=60))
        while not waiting.done():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)
        assert await waiting == 1
        assert await (await quick.submit(brisk, 1)).result(timeout=10) == 3
    assert peak - before < 40_000_000
    logs = await quick.backend.load_step_logs(flow.slug, run.id, "misbehave" if flow is rough else "shout")
    assert logs is not None
    assert sum(len(line.message) for line in logs) < 3_000_000
    assert any("lines dropped" in line.message for line in logs)
