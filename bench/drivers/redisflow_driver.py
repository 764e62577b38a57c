"""redisflow: workflows of one and of three steps, submitted by `submit_many`, run by one worker process."""

import asyncio
import signal
import sys
from contextlib import suppress

import tally

from redisflow import Client, Worker, Workflow

one = Workflow("bench-one")
chain = Workflow("bench-chain")


@one.step
async def noop() -> None:
    """Nothing."""
    tally.started()


@chain.step
async def first() -> None:
    """Nothing."""
    tally.started()


@chain.step
async def second(first: None) -> None:
    """Nothing."""
    tally.started()


@chain.step
async def third(second: None) -> None:
    """Nothing."""
    tally.started()


async def ended(client: Client) -> bool:
    """Tell the end when the server has recorded the end of every run, not when the last step has run."""
    if tally.WORKERS == 1 and tally.begun() < tally.COUNT:
        return False  # nothing to ask the server for yet
    keys = [keys.index(flow.slug, "completed") for keys in client.backend.partitions for flow in (one, chain)]
    done = sum([await client.backend.client.zcard(key) for key in keys])
    if done >= tally.RUNS:
        tally.tell("share", tally.begun())
        tally.stamp("last")
    return done >= tally.RUNS


async def work() -> None:
    """One worker process with the settings that every worker has."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with Client(tally.URL) as client, Worker(client, [one, chain]):
        tally.tell("ready")
        while not stopping.is_set() and (tally.EACH or not await ended(client)):
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 0.005)
        await stopping.wait()


async def main(word: str) -> None:
    """Do what the word says."""
    if word == "work":
        await work()
        return
    async with Client(tally.URL) as client:
        await client.submit_many(chain if word == "chain" else one, [])  # registers the workflow
        if word in ("enqueue", "chain"):
            await tally.timed_async(client.submit_many(one if word == "enqueue" else chain, [None] * tally.COUNT))
        elif word == "singles":
            await tally.singles_async(lambda: client.submit(one))
        else:
            await tally.submit_lines_async(lambda: client.submit(one))


asyncio.run(main(sys.argv[1]))
