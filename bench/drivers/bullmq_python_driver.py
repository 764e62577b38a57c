"""BullMQ for Python: addBulk of 1,000, one Worker with 100 jobs at once."""

import asyncio
import sys

import tally
from bullmq import Queue, Worker

BULK = 1000
NAME = "bench"


async def noop(job, token):
    """Nothing."""
    tally.ran()


async def enqueue(queue):
    """All of them."""
    for first in range(0, tally.COUNT, BULK):
        await queue.addBulk([{"name": "noop", "data": {}} for _ in range(min(BULK, tally.COUNT - first))])


async def main(word):
    """Do what the word says."""
    if word == "work":
        Worker(NAME, noop, {"connection": tally.URL, "concurrency": 100})
        tally.tell("ready")
        await asyncio.Event().wait()
    queue = Queue(NAME, {"connection": tally.URL})

    def submit():
        return queue.add("noop", {})

    if word == "enqueue":
        await tally.timed_async(enqueue(queue))
    elif word == "singles":
        await tally.singles_async(submit)
    else:
        await tally.submit_lines_async(submit)
    await queue.close()


asyncio.run(main(sys.argv[1]))
