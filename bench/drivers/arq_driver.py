"""arq: enqueue_job calls side by side (it has no bulk call), one worker with 100 jobs at once and its usual poll."""

import asyncio
import sys

import tally
from arq import Worker, create_pool
from arq.connections import RedisSettings

SETTINGS = RedisSettings.from_dsn(tally.URL)
SETTINGS.max_connections = 100


async def noop(ctx):
    """Nothing."""
    tally.ran()


async def main(word):
    """Do what the word says."""
    pool = await create_pool(SETTINGS)

    def submit():
        return pool.enqueue_job("noop")

    if word == "submit":
        await tally.submit_lines_async(submit)
    else:
        await tally.singles_async(submit)
    await pool.aclose()


if sys.argv[1] == "work":
    asyncio.set_event_loop(asyncio.new_event_loop())
    tally.tell("ready")
    Worker([noop], redis_settings=SETTINGS, max_jobs=100, log_results=False).run()
else:
    asyncio.run(main(sys.argv[1]))
