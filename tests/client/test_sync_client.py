"""The blocking client: threads, forks, iterators, and its background thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from redisflow import (
    InvalidInput,
    ResultTimeout,
    RunCancelled,
    RunNotFound,
    ServerUnavailable,
    Settings,
    Submission,
    Worker,
)
from redisflow.client import Client as AsyncClient
from redisflow.sync import Client
from tests.flows_worker import brisk

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def blocking(settings: Settings) -> Iterator[Client]:
    with Client(settings=settings) as opened:
        yield opened


@pytest.fixture
def worker(settings: Settings) -> Iterator[None]:
    """A worker in a thread of its own."""
    ready, stop = threading.Event(), []

    async def work() -> None:
        async with AsyncClient(settings=settings) as client:
            running = Worker(client, [brisk])
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(running.stop))
            ready.set()
            await running.run()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(10)
    yield
    stop[0]()
    thread.join()


def test_submit_and_result(blocking: Client, worker: None) -> None:
    run = blocking.submit(brisk, 20)
    assert run.result(timeout=10) == 41
    assert run.status().status == "completed"
    assert blocking.run(run.id).result() == 41
    assert set(blocking.steps(run.id)) == {"double", "increment"}
    assert blocking.submit("brisk", 1).result(timeout=10) == 3


def test_batches_and_listing(blocking: Client) -> None:
    runs = blocking.submit_many(brisk, [1, Submission(2, key="k"), Submission(3, key="k")])
    assert [run.is_new for run in runs] == [True, True, False]
    assert blocking.runs("brisk", status=["pending"])[1] == 2
    assert runs[0].cancel("enough").cancelled
    assert blocking.runs(status=["cancelled"])[0][0].run_id == runs[0].id


def test_errors_arrive_as_they_are(blocking: Client) -> None:
    with pytest.raises(InvalidInput):
        blocking.submit(brisk, "many")  # type: ignore[arg-type]
    with pytest.raises(RunNotFound):
        blocking.status("never")
    with pytest.raises(RunNotFound):
        list(blocking.events("never"))
    run = blocking.submit(brisk, 1)
    with pytest.raises(ResultTimeout):
        run.result(timeout=0.01)


def test_events_are_an_iterator(blocking: Client, worker: None) -> None:
    run = blocking.submit(brisk, 1)
    types = [event.type for event in run.events()]
    assert (types[0], types[-1], types.count("StepCompleted")) == ("RunSubmitted", "WorkflowCompleted", 2)
    for event in run.events():  # left early
        assert event.type == "RunSubmitted"
        break


def test_a_cancelled_run_raises(blocking: Client) -> None:
    run = blocking.submit(brisk, 1)
    run.cancel("enough")
    with pytest.raises(RunCancelled, match="enough"):
        run.result(timeout=10)


def test_any_thread_may_call(settings: Settings, worker: None) -> None:
    client = Client(settings=settings)  # opened by whichever thread is first

    def one(number: int) -> int:
        return client.submit(brisk, number).result(timeout=20)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(one, range(40))) == [2 * n + 1 for n in range(40)]
    assert sum(thread.name == "redisflow-sync" for thread in threading.enumerate()) == 1
    client.close()
    client.close()


def test_a_closed_client_opens_again(settings: Settings) -> None:
    client = Client(settings=settings)
    run = client.submit(brisk, 1)
    client.close()
    assert client.status(run.id).status == "pending"
    client.close()


def test_a_client_that_cannot_open_leaves_no_thread(settings: Settings) -> None:
    client = Client(settings=settings.model_copy(update={"url": "unix:///nowhere.sock", "retry_deadline": 10_000}))
    with pytest.raises(ServerUnavailable):
        client.open()
    assert not any(thread.name == "redisflow-sync" for thread in threading.enumerate())


def run_script(text: str, settings: Settings, folder: Path) -> tuple[int, str, str]:
    """Run a program that forks; whatever becomes of it, no process of it stays. Exit code, output, errors."""
    script = folder / "script.py"
    script.write_text(text)
    environment = {
        "PYTHONPATH": str(ROOT), "REDISFLOW_URL": settings.url or "",
        "REDISFLOW_NAMESPACE": settings.namespace,
        "REDISFLOW_RETRY_DEADLINE": "10s",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, **environment}, start_new_session=True,
    )  # fmt: skip
    try:
        said, complaints = process.communicate(timeout=20)
        return process.returncode, said.strip(), complaints
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


FORKS = """
import gc, os, sys, threading
from redisflow.sync import Client
from tests.flows_worker import brisk

client = Client().open()
before = client.submit(brisk, 1)
assert client.runs()[1] == 1

def child(number):
    run = client.submit(brisk, number)
    gc.collect()
    assert before.status().run_id == before.id  # a run of the parent's, too
    assert [state.run_id for state in client.runs()[0]].count(run.id) == 1
    client.close()

children = []
for number in range(3):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(number)
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(code)
    children.append(pid)
    client.submit(brisk, 100 + number)  # the parent goes on, on its own connections
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert codes == [0, 0, 0], codes
for number in range(20):
    client.submit(brisk, number)
assert client.runs(limit=1)[1] == 1 + 3 + 3 + 20, client.runs(limit=1)[1]
client.close()
assert not [t for t in threading.enumerate() if t is not threading.main_thread()]
print("fine")
"""


def test_a_fork_gets_a_thread_and_connections_of_its_own(settings: Settings, tmp_path: Path) -> None:
    code, said, complaints = run_script(FORKS, settings, tmp_path)
    assert (code, said) == (0, "fine"), complaints


LOCKED = """
import os, threading
from redisflow.sync import Client

client = Client().open()
client._lock.acquire()  # as a thread of the parent would, in the moment of the fork
pid = os.fork()
if pid == 0:
    client.runs()
    client.close()
    other = os.fork()
    if other == 0:
        client.close()  # never opened here
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
second = os.fork()
if second == 0:
    client.close()
    os._exit(0)
client._lock.release()
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in (pid, second)]
client.close()
print(codes)
"""


def test_a_fork_while_the_client_is_locked(settings: Settings, tmp_path: Path) -> None:
    _, said, complaints = run_script(LOCKED, settings, tmp_path)
    assert said == "[0, 0]", complaints
