"""Workflows for worker processes: `python tests/flows_worker.py` serves them until it is told to stop.

The server and all thresholds come from the environment, as for any worker.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from redisflow import StepContext, Workflow
from redisflow.client import Client
from redisflow.worker import Worker
from redisflow.worker.capture import set_up_logging

brisk = Workflow("brisk", input=int, output=int)


@brisk.step
async def double(number: int) -> int:
    return number * 2


@brisk.step(export=True)
async def increment(double: int) -> int:
    return double + 1


held = Workflow("held", input=str, output=int)


@held.step(export=True)
async def hold(where: str, ctx: StepContext) -> int:
    """The first attempt never ends; later ones do at once."""
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return ctx.attempt


gated = Workflow("gated", input=str, output=int)


@gated.step(export=True)
def watch(where: str, ctx: StepContext) -> int:
    """Runs until a file is there, whatever the worker says."""
    pause = threading.Event()
    while not Path(where).exists():
        pause.wait(0.005)
    return ctx.attempt


patient = Workflow("patient", input=str, output=int)


@patient.step(export=True)
async def wait(where: str, ctx: StepContext) -> int:
    """Says beside the file that it runs, until the file is there or it is cancelled."""
    Path(f"{where}.begun").touch()
    while not Path(where).exists():
        await asyncio.sleep(0.005)
    return ctx.attempt


rough = Workflow("rough", input=dict[str, Any], output=int)
"""Bodies that no engine can keep from misbehaving: in the first attempt they do what `input["do"]` says."""


@rough.step(export=True)
def misbehave(input: dict[str, Any], ctx: StepContext) -> int:
    if ctx.attempt == 1:
        if input["do"] == "gil":  # PyDLL keeps the lock, so that no other thread of the process runs
            ctypes.PyDLL(None).usleep(int(input["us"]))
        elif input["do"] == "exit":
            os._exit(3)
        elif input["do"] == "threads":
            for _ in range(100):
                threading.Thread(target=threading.Event().wait).start()
        elif input["do"] == "shout":
            line = "x" * 99 + "\n"
            for _ in range(int(input["bytes"]) // 100_000):
                sys.stdout.write(line * 1000)
    return ctx.attempt


loud = Workflow("loud", input=int, output=int)


@loud.step(export=True, isolate=True)
def shout(input: int, ctx: StepContext) -> int:
    """Writes so many bytes past every buffer of Python's."""
    for _ in range(input // 100_000):
        os.write(1, (b"x" * 99 + b"\n") * 1000)
    return ctx.attempt


FLOWS = [brisk, held, gated, patient, rough, loud]


def shift_clocks(seconds: float) -> None:
    """Let this process take the time for another; what measures durations goes on."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


async def main() -> None:
    shift_clocks(float(os.environ.get("CLOCK_OFF", "0")))
    set_up_logging(os.environ.get("REDISFLOW_LOG_FORMAT", "text"))
    async with Client() as client:
        worker = Worker(
            client, FLOWS, concurrency=int(sys.argv[1]) if len(sys.argv) > 1 else None,
            worker_id=os.environ.get("WORKER_ID"),
        )  # fmt: skip
        worker.stop_on_signals()
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
