"""Isolated steps: a process of their own, which says how it ended, or is killed for real."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import pytest

from redisflow import (
    Client,
    Fatal,
    Retry,
    RetryAfter,
    RunFailed,
    Settings,
    Skip,
    StepContext,
    Use,
    Worker,
    Workflow,
    resource,
)
from redisflow.model.errors import UsageError
from tests.conftest import assert_consistent, eventually

flow = Workflow("isolated", input=dict[str, Any], output=dict[str, Any])


@resource
async def opened() -> AsyncIterator[int]:
    yield os.getpid()


@flow.step(isolate=True, timeout="20s", retry=Retry(attempts=2, delay="1ms"), export=True)
def work(input: dict[str, Any], ctx: StepContext, held: Annotated[int, Use(opened)]) -> dict[str, Any]:
    behaviour = input["do"]
    if "pids" in input:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(input["pids"]).write_text(f"{os.getpid()} {child.pid}")
    if behaviour == "sleep":
        time.sleep(600)
    elif behaviour == "exit":
        os._exit(3)
    elif behaviour == "segfault":
        ctypes.string_at(0)
    elif behaviour == "stop":
        raise StopIteration
    elif behaviour == "quit":
        sys.exit(4)
    elif behaviour == "raise":
        raise LookupError("nothing there")
    elif behaviour == "skip":
        raise Skip("not today", {"until": "tomorrow"})
    elif behaviour == "fatal":
        raise Fatal("never")
    elif behaviour == "later" and ctx.attempt == 1:
        raise RetryAfter("5ms")
    elif behaviour == "big":
        return {"text": "x" * 2_000_000}
    elif behaviour == "memory":
        return {"size": len(b"x" * 200_000_000)}
    seen = [ctx.workflow, ctx.run_id, ctx.step_id, ctx.attempt, ctx.idempotency_key, ctx.worker_id, ctx.cancelled]
    return {"pid": os.getpid(), "held": held, "seen": seen, "sid": os.getsid(0)}


short = Workflow("isolated-short", input=str)


@short.step(isolate=True, timeout="6s")
def endless(input: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(input).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return settings.model_copy(update={"home": tmp_path / "home", "drain_timeout": 100_000})


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[Client]:
    async with Client(settings=settings) as client:
        yield client
        await assert_consistent(client.backend)
    spool = settings.home / "spool"
    assert not spool.exists() or not list(spool.iterdir()), "the spool folder is not empty"


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def pids_in(path: Path) -> list[int]:
    await eventually(lambda: path.exists() and len(path.read_text().split()) == 2, 20)
    return [int(pid) for pid in path.read_text().split()]


async def gone(pids: list[int]) -> None:
    await eventually(lambda: not any(alive(pid) for pid in pids))


async def ends_of(client: Client, run_id: str) -> list[dict[str, Any]]:
    wire = await client.backend.load_wire_events(run_id)
    return [event for event in wire if event["type"] in ("StepCompleted", "StepFailed", "StepSkipped")]


async def test_it_runs_in_a_session_of_its_own_with_its_context_and_resources(client: Client) -> None:
    async with Worker(client, [flow]) as worker:
        run = await client.submit(flow, {"do": "work"})
        result = await run.result(timeout=30)
    assert result["pid"] == result["held"] == result["sid"] != os.getpid()
    assert result["seen"] == ["isolated", run.id, "work", 1, f"{run.id}:work", worker.id, False]
    (completed,) = await ends_of(client, run.id)
    used = completed["resourceUsage"]
    assert used["cpuTimeTotalUs"] == used["cpuTimeUserUs"] + used["cpuTimeSystemUs"] > 10_000
    assert 5_000_000 < used["peakMemoryBytes"] < 190_000_000
    assert used["voluntaryContextSwitches"] >= 0
    assert used["involuntaryContextSwitches"] >= 0


async def test_peak_memory_is_that_of_the_process(client: Client) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"do": "memory"})
        assert await run.result(timeout=30) == {"size": 200_000_000}
    (completed,) = await ends_of(client, run.id)
    assert completed["resourceUsage"]["peakMemoryBytes"] > 200_000_000


@pytest.mark.parametrize(
    ("behaviour", "message", "failures"),
    [
        ("exit", "the step's process exited with code 3 before it gave an output", 2),
        ("segfault", "the step's process was ended by signal SIGSEGV", 2),
        ("raise", "nothing there", 2),
        ("stop", "StopIteration", 2),
        ("quit", "SystemExit: 4", 2),
        ("fatal", "never", 1),
        ("big", "is over|exceeds|larger|bytes", 1),
    ],
)
async def test_a_bad_end_is_a_failure_that_says_how(
    client: Client, behaviour: str, message: str, failures: int
) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"do": behaviour})
        with pytest.raises(RunFailed, match=message):
            await run.result(timeout=30)
    ends = await ends_of(client, run.id)
    assert [end["type"] for end in ends] == ["StepFailed"] * failures
    assert all(end["resourceUsage"]["cpuTimeTotalUs"] > 0 for end in ends)
    if behaviour == "raise":
        assert ends[0]["error"]["name"] == "LookupError"
        assert "in work" in ends[0]["error"]["stack"]


async def test_skip_and_retry_after_keep_their_meaning(client: Client) -> None:
    async with Worker(client, [flow]):
        skipped = await client.submit(flow, {"do": "skip"})
        later = await client.submit(flow, {"do": "later"})
        assert await skipped.result(timeout=30) in (None, {})
        assert (await later.result(timeout=30))["seen"][3] == 2
    (end,) = await ends_of(client, skipped.id)
    assert (end["type"], end["reason"], end["metadata"]) == ("StepSkipped", "not today", {"until": "tomorrow"})


async def test_a_timeout_kills_it_and_what_it_started(client: Client, tmp_path: Path) -> None:
    async with Worker(client, [short]):
        run = await client.submit(short, str(tmp_path / "pids"))
        pids = await pids_in(tmp_path / "pids")
        with pytest.raises(RunFailed, match=r"timeout of 6 s"):
            await run.result(timeout=30)
        await gone(pids)
    (failed,) = await ends_of(client, run.id)
    assert failed["failureReason"] == "timeout"
    assert failed["resourceUsage"]["peakMemoryBytes"] > 0


async def test_a_cancel_kills_it(client: Client, tmp_path: Path) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"do": "sleep", "pids": str(tmp_path / "pids")})
        pids = await pids_in(tmp_path / "pids")
        await client.backend.cancel_run(run.id)
        await gone(pids)


async def test_a_drain_that_is_cut_kills_it_and_hands_it_back(client: Client, tmp_path: Path) -> None:
    async with Worker(client, [flow]):
        run = await client.submit(flow, {"do": "sleep", "pids": str(tmp_path / "pids")})
        pids = await pids_in(tmp_path / "pids")
    assert not any(alive(pid) for pid in pids)
    states = await client.backend.load_step_states(run.id)
    assert states["work"].status == "scheduled"


async def test_it_dies_with_its_worker(client: Client, settings: Settings, tmp_path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from redisflow import Client, Settings, Worker\n"
        "import test_isolation as here\n"
        "async def main():\n"
        "    async with Client(settings=Settings(url=sys.argv[1], namespace=sys.argv[2], home=sys.argv[3])) as client:\n"
        "        await Worker(client, [here.flow]).run()\n"
        "asyncio.run(main())\n"
    )
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent.parent)]
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(settings.url), settings.namespace, str(tmp_path / "other")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )
    try:
        run = await client.submit(flow, {"do": "sleep", "pids": str(tmp_path / "pids")})
        child, grandchild = await pids_in(tmp_path / "pids")
        worker.kill()
        await gone([child])
        os.kill(grandchild, 9)
    finally:
        worker.kill()
        await asyncio.to_thread(worker.wait)
    await client.backend.cancel_run(run.id)


async def test_the_workflow_of_a_program_is_loaded_from_its_file(
    client: Client, settings: Settings, tmp_path: Path
) -> None:
    program = tmp_path / "some-program.py"
    program.write_text(
        "import asyncio, sys\n"
        "from redisflow import Client, Settings, Worker, Workflow\n"
        "flow = Workflow('program', output=str)\n"
        "@flow.step(isolate=True, export=True)\n"
        "def name() -> str:\n"
        "    return __name__\n"
        "async def main():\n"
        "    async with Client(settings=Settings(url=sys.argv[1], namespace=sys.argv[2], home=sys.argv[3])) as client:\n"
        "        async with Worker(client, [flow]):\n"
        "            print(await (await client.submit(flow)).result(timeout=30))\n"
        "if __name__ == '__main__':\n"
        "    asyncio.run(main())\n"
    )
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(program), str(settings.url), settings.namespace, str(tmp_path / "other")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (ran.stdout, ran.stderr) == ("some-program\n", "")


async def test_a_workflow_that_cannot_be_imported_is_refused_at_the_start(client: Client) -> None:
    local = Workflow("local")

    @local.step(isolate=True)
    def step() -> None: ...

    with pytest.raises(UsageError, match="declare it at the top level of a module"):
        await Worker(client, [local]).start()
