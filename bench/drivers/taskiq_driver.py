"""taskiq: kiq calls side by side (it has no bulk call) to its acknowledging stream broker, one receiver with 100 tasks at once."""

import asyncio
import sys

import tally
from taskiq.api import run_receiver_task
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

broker = RedisStreamBroker(tally.URL).with_result_backend(RedisAsyncResultBackend(tally.URL, result_ex_time=3600))


@broker.task
async def noop() -> None:
    """Nothing."""
    tally.ran()


async def main(word):
    """Do what the word says."""
    if word == "work":
        broker.is_worker_process = True
        await broker.startup()
        tally.tell("ready")
        await run_receiver_task(broker, max_async_tasks=100)
        return
    await broker.startup()
    if word == "submit":
        await tally.submit_lines_async(noop.kiq)
    else:
        await tally.singles_async(noop.kiq)
    await broker.shutdown()


asyncio.run(main(sys.argv[1]))
