"""rq: enqueue_many in batches of 1,000, one SimpleWorker, which runs jobs in its own process instead of a fork each."""

import sys

import tally
from redis import Redis
from rq import Queue, SimpleWorker

BULK = 1000
queue = Queue("bench", connection=Redis.from_url(tally.URL))
JOB = "rq_driver.noop"


def noop():
    """Nothing."""
    tally.ran()


def enqueue():
    """All of them."""
    for first in range(0, tally.COUNT, BULK):
        queue.enqueue_many([Queue.prepare_data(JOB) for _ in range(min(BULK, tally.COUNT - first))])


if __name__ == "__main__":
    word = sys.argv[1]
    if word == "enqueue":
        tally.timed(enqueue)
    elif word == "singles":
        tally.singles(lambda: queue.enqueue(JOB))
    elif word == "submit":
        tally.submit_lines(lambda: queue.enqueue(JOB))
    else:
        tally.tell("ready")
        SimpleWorker([queue], connection=queue.connection).work(logging_level="WARNING")
