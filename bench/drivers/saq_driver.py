"""saq: enqueue calls side by side (it has no bulk call that does not wait), one worker with 100 jobs at once."""

import asyncio
import logging
import sys

import tally
from saq import Queue, Worker

logging.getLogger("saq").setLevel(logging.WARNING)


async def noop(ctx):
    """Nothing."""
    tally.ran()


async def main(word):
    """Do what the word says."""
    queue = Queue.from_url(tally.URL)
    await queue.connect()

    def submit():
        return queue.enqueue("noop")

    if word == "work":
        tally.tell("ready")
        await Worker(queue, functions=[noop], concurrency=100).start()
    elif word == "submit":
        await tally.submit_lines_async(submit)
    else:
        await tally.singles_async(submit)
    await queue.disconnect()


asyncio.run(main(sys.argv[1]))
