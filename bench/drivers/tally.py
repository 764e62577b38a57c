"""What a job of any peer does: nothing but count itself. It runs in the peers' environments, on the standard library alone.

A program of a peer is called with one word: `enqueue` (BENCH_COUNT jobs in bulk), `chain` (as many workflows of three steps),
`singles` (BENCH_COUNT submit calls, 50 under way), `submit` (a job a line of stdin), or `work`. It tells what happened by lines to
the pipe BENCH_PIPE; times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

import itertools
import os
import sys
import time

URL = os.environ["BENCH_URL"]
COUNT = int(os.environ["BENCH_COUNT"])
RUNS = int(os.environ.get("BENCH_RUNS", COUNT))
WORKERS = int(os.environ.get("BENCH_WORKERS", 1))
EACH = os.environ.get("BENCH_EACH") == "1"
IN_FLIGHT = 50

_pipe = os.open(os.environ["BENCH_PIPE"], os.O_WRONLY)
_begun = 0
_ended = itertools.count(1)


def tell(*words):
    """Write one line; short enough to be whole."""
    os.write(_pipe, (" ".join(map(str, words)) + "\n").encode())


def stamp(word):
    """A line with the time and the CPU time of this process, both in ns."""
    tell(word, time.monotonic_ns(), time.process_time_ns())


def started():
    """The first line of every job."""
    global _begun
    if EACH:
        tell("start", time.monotonic_ns())
        return
    if not _begun:
        stamp("first")
    _begun += 1


def begun():
    """How many jobs have begun in this process."""
    return _begun


def ended():
    """The last line of every job."""
    if not EACH:
        number = next(_ended)
        if number == COUNT:
            stamp("last")
        elif number > COUNT:
            tell("extra", number)


def ran():
    """A whole job that does nothing."""
    started()
    ended()


def timed(call):
    """Run a call that enqueues, and tell how long it took."""
    began = time.monotonic_ns()
    call()
    tell("took", time.monotonic_ns() - began)


async def timed_async(call):
    """The same of a coroutine."""
    began = time.monotonic_ns()
    await call
    tell("took", time.monotonic_ns() - began)


UNTOLD = 0.005
"""Seconds after a submit until it is told: who hears of it is one process more, and would take a core from what is measured."""


def submit_lines(submit):
    """A job for every line of stdin, until it ends."""
    tell("ready")
    for _ in sys.stdin:
        began = time.monotonic_ns()
        submit()
        time.sleep(UNTOLD)
        tell("submit", began)


async def submit_lines_async(submit):
    """The same of a coroutine function; no thread reads, since it would hold the interpreter as the submit begins."""
    import asyncio

    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tell("ready")
    while await lines.readline():
        began = time.monotonic_ns()
        await submit()
        await asyncio.sleep(UNTOLD)
        tell("submit", began)


def singles(submit):
    """COUNT calls from as many threads as may be under way."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        timed(lambda: list(pool.map(lambda _: submit(), range(COUNT))))


async def singles_async(submit):
    """COUNT calls, as many under way as there may be."""
    import asyncio

    numbers = iter(range(COUNT))

    async def some():
        for _ in numbers:
            await submit()

    async def all_of_them():
        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))

    await timed_async(all_of_them())
