"""dramatiq: a send a job (it has no bulk call), one worker process with its usual 8 threads."""

import signal
import sys

import dramatiq
import tally
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=tally.URL)
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(*_):
    """Nothing."""
    tally.ran()


def chains():
    """All of them, each of three steps."""
    for _ in range(tally.COUNT):
        dramatiq.pipeline([noop.message(), noop.message(), noop.message()]).run()


word = sys.argv[1]
if word == "enqueue":
    tally.timed(lambda: [noop.send() for _ in range(tally.COUNT)])
elif word == "chain":
    tally.timed(chains)
elif word == "singles":
    tally.singles(noop.send)
elif word == "submit":
    tally.submit_lines(noop.send)
else:
    worker = dramatiq.Worker(broker)
    worker.start()
    tally.tell("ready")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
