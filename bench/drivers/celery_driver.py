"""Celery: a call a job (it has no bulk call), one worker with 8 threads, prefetch 64, no gossip, no results, as its docs advise."""

import sys

import tally
from celery import Celery, chain

app = Celery("bench", broker=tally.URL)
app.conf.update(
    worker_prefetch_multiplier=64,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)


@app.task(name="noop")
def noop():
    """Nothing."""
    tally.ran()


def chains():
    """All of them, each of three steps."""
    for _ in range(tally.COUNT):
        chain(noop.si(), noop.si(), noop.si()).apply_async()


word = sys.argv[1]
if word == "enqueue":
    tally.timed(lambda: [noop.delay() for _ in range(tally.COUNT)])
elif word == "chain":
    tally.timed(chains)
elif word == "singles":
    tally.singles(noop.delay)
elif word == "submit":
    tally.submit_lines(noop.delay)
else:
    tally.tell("ready")
    app.worker_main(
        ["worker", "--pool", "threads", "--concurrency", "8", "--loglevel", "ERROR", "--without-gossip", "--without-mingle",
         "--without-heartbeat"]
    )  # fmt: skip
