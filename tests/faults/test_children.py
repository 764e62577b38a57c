"""Processes of isolated steps, killed at random points: the step tries again within its budget, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from redisflow import Client, Retry, RunFailed, Settings, StepContext, Worker, Workflow
from tests.conftest import assert_consistent, eventually
from tests.faults.harness import wire_of

ATTEMPTS = 4
mortal = Workflow("mortal", input=dict[str, Any], output=int)


@mortal.step(isolate=True, retry=Retry(attempts=ATTEMPTS, delay="1ms"), export=True)
def live(input: dict[str, Any], ctx: StepContext) -> int:
    """Starts a process, prints, sleeps, returns something large."""
    other = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    with Path(input["pids"]).open("a") as file:
        file.write(f"{os.getpid()}\n{other.pid}\n")
    for number in range(20):
        print("line", number, flush=True)
        time.sleep(0.005)
    return int(input["n"])


def children() -> list[psutil.Process]:
    """Processes of isolated steps that live."""
    found = []
    for process in psutil.Process().children():
        try:
            if "redisflow.worker.child" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


async def kill_at_random(chance: random.Random, kills: int) -> None:
    killed = 0
    while killed < kills:
        await asyncio.sleep(chance.uniform(0, 0.15))
        there = children()
        if there:
            chance.choice(there).kill()
            killed += 1


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)  # init reaps it when it likes
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_children_are_killed_at_random_points(settings: Settings, tmp_path: Path, seed: int) -> None:
    pids, count, kills = tmp_path / "pids", 40, 60
    given = settings.model_copy(update={"home": tmp_path / "home"})
    async with Client(settings=given) as client:
        async with Worker(client, [mortal], concurrency=4):
            killing = asyncio.create_task(kill_at_random(random.Random(seed), kills))
            runs = [await client.submit(mortal, {"n": n, "pids": str(pids)}) for n in range(count)]
            ends = await asyncio.gather(*(run.result(timeout=100) for run in runs), return_exceptions=True)
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        died = 0
        for number, (run, end) in enumerate(zip(runs, ends, strict=True)):
            events = await wire_of(client, run.id)
            types = Counter(event["type"] for event in events)
            failures = [event["error"] for event in events if event["type"] == "StepFailed"]
            assert all("was ended by signal SIGKILL" in error["message"] for error in failures), failures
            assert types["StepReclaimed"] == 0
            if isinstance(end, RunFailed):
                assert (types["StepStarted"], types["StepCompleted"], len(failures)) == (ATTEMPTS, 0, ATTEMPTS)
            else:
                assert end == number
                assert (types["StepStarted"], types["StepCompleted"]) == (len(failures) + 1, 1)
            died += len(failures)
        assert died > kills / 3  # some came after the step had said its end
        assert children() == []
        spool = given.home / "spool"
        assert not [path for path in spool.rglob("*") if path.is_file()]
        for pid in map(int, pids.read_text().split()):
            await eventually(lambda pid=pid: is_gone(pid))
        await assert_consistent(client.backend)
