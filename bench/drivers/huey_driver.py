"""huey: a task call a job (it has no bulk call), one consumer with one thread, as no-op jobs gain nothing from more."""

import logging
import sys

import tally
from huey import RedisHuey

logging.getLogger("huey").setLevel(logging.WARNING)
queue = RedisHuey("bench", url=tally.URL)


@queue.task()
def noop():
    """Nothing."""
    tally.ran()


word = sys.argv[1]
if word == "enqueue":
    tally.timed(lambda: [noop() for _ in range(tally.COUNT)])
elif word == "singles":
    tally.singles(noop)
elif word == "submit":
    tally.submit_lines(noop)
else:
    tally.tell("ready")
    queue.create_consumer(workers=1, periodic=False).run()
