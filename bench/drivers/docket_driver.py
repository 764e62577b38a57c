"""docket: add_many in pipelines of 1,000, one worker with 50 tasks at once that looks again after 1 ms."""

import asyncio
import logging
import sys
from datetime import timedelta

import tally
from docket import Docket, Worker

logging.getLogger("docket").setLevel(logging.WARNING)


async def noop() -> None:
    """Nothing."""
    tally.ran()


async def main(word):
    """Do what the word says."""
    async with Docket(name="bench", url=tally.URL) as docket:
        docket.register(noop)

        def submit():
            return docket.add(noop)()

        if word == "enqueue":
            await tally.timed_async(docket.add_many([docket.call(noop)() for _ in range(tally.COUNT)]))
        elif word == "singles":
            await tally.singles_async(submit)
        elif word == "submit":
            await tally.submit_lines_async(submit)
        else:
            async with Worker(docket, concurrency=50, minimum_check_interval=timedelta(milliseconds=1)) as worker:
                tally.tell("ready")
                await worker.run_forever()


asyncio.run(main(sys.argv[1]))
