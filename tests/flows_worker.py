"""Workflows for worker processes: `python tests/flows_worker.py` serves them until it is told to stop.

The server and all thresholds come from the environment, as for any worker.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

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
    """Runs until a file is there, or it is cancelled."""
    while not Path(where).exists():
        await asyncio.sleep(0.005)
    return ctx.attempt


FLOWS = [brisk, held, gated, patient]


async def main() -> None:
    set_up_logging(os.environ.get("REDISFLOW_LOG_FORMAT", "text"))
    async with Client() as client:
        worker = Worker(client, FLOWS, concurrency=int(sys.argv[1]) if len(sys.argv) > 1 else None)
        worker.stop_on_signals()
        await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
