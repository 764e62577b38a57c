"""streaq: enqueue_many in pipelines of 1,000, one worker with 100 tasks at once."""

import asyncio
import logging
import sys

import tally
from streaq import Worker

logging.getLogger("streaq").setLevel(logging.WARNING)
BULK = 1000
worker = Worker(redis_url=tally.URL, concurrency=100)


@worker.task
async def noop() -> None:
    """Nothing."""
    tally.ran()


async def enqueue():
    """All of them."""
    for first in range(0, tally.COUNT, BULK):
        await worker.enqueue_many([noop.enqueue() for _ in range(min(BULK, tally.COUNT - first))])


async def submit():
    """One."""
    await noop.enqueue()


async def main(word):
    """Do what the word says."""
    async with worker:
        if word == "enqueue":
            await tally.timed_async(enqueue())
        elif word == "submit":
            await tally.submit_lines_async(submit)
        else:
            await tally.singles_async(submit)


if sys.argv[1] == "work":
    tally.tell("ready")
    worker.run_sync()
else:
    asyncio.run(main(sys.argv[1]))
