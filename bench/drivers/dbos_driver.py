"""dbos: workflows of one and of three steps on SQLite, as no database server is at hand; a queue polled every 10 ms."""

import sys
import threading

import tally
from dbos import DBOS

DBOS(config={"name": "bench", "system_database_url": "sqlite:///bench.sqlite", "log_level": "ERROR"})
NAME = "bench"


@DBOS.step()
def step():
    """Nothing."""
    tally.ran()


@DBOS.workflow()
def one():
    """One step."""
    step()


@DBOS.workflow()
def chain():
    """Three steps."""
    step()
    step()
    step()


def submit(workflow=one):
    """One workflow."""
    return DBOS.enqueue_workflow(NAME, workflow)


word = sys.argv[1]
if word != "work":
    DBOS.listen_queues([])
DBOS.launch()
DBOS.register_queue(NAME, polling_interval_sec=0.01)
if word == "work":
    tally.tell("ready")
    threading.Event().wait()
elif word in ("enqueue", "chain"):
    tally.timed(lambda: [submit(one if word == "enqueue" else chain) for _ in range(tally.COUNT)])
elif word == "singles":
    tally.singles(submit)
else:
    tally.submit_lines(submit)
DBOS.destroy()
