"""The blocking twin of the client, for Django, Flask and scripts.

    from redisflow.sync import Client

    with Client() as rf:
        run = rf.submit(checkout, Order(id="o-1"))
        print(run.result(timeout=5))

One background thread a process runs the asyncio client; any thread may call. After a fork the child makes its own thread and
connections, so a client made before the workers of a web server fork is safe.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from redisflow import client as asynchronous
from redisflow.backend.types import CancelResult
from redisflow.client import Submission
from redisflow.define import Task, Workflow
from redisflow.model.events import BaseEvent
from redisflow.model.states import RunState, StepState
from redisflow.settings import Duration, Settings

In = TypeVar("In")
Out = TypeVar("Out")
T = TypeVar("T")


_inherited: list[
    object
] = []  # after a fork: the parent's, kept from the collector, which would close what is the parent's


class _LoopThread:
    """An event loop in a daemon thread of this process."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="redisflow-sync", daemon=True)
        self.thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there and wait for it; an interrupt cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Stop the loop and end the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@dataclass(frozen=True)
class Run(Generic[Out]):
    """A submitted run; see `redisflow.Run`."""

    id: str
    is_new: bool = True
    _client: Client | None = field(default=None, repr=False, compare=False)
    _workflow: Workflow[Any, Out] | None = field(default=None, repr=False, compare=False)

    def result(self, timeout: Duration | None = None) -> Out:
        """Wait for the end and give the output.

        Raises:
            RunFailed, RunCancelled: how it ended otherwise.
            ResultTimeout: it has not ended yet; it goes on.
        """
        output: Out = self._rf.result(self.id, timeout=timeout, workflow=self._workflow)
        return output

    def status(self) -> RunState:
        """State of the run now."""
        return self._rf.status(self.id)

    def events(self) -> Iterator[BaseEvent]:
        """Events from the first, live, until the run ends."""
        return self._rf.events(self.id)

    def cancel(self, reason: str | None = None) -> CancelResult:
        """Cancel the run."""
        return self._rf.cancel(self.id, reason)

    @property
    def _rf(self) -> Client:
        assert self._client is not None
        return self._client


class Client:
    """Blocking client of one namespace; thread- and fork-safe. Arguments as `redisflow.Client`."""

    def __init__(
        self, url: str | None = None, *, namespace: str | None = None, settings: Settings | None = None,
        durability: Literal["acknowledged", "replicated"] | None = None,
    ) -> None:  # fmt: skip
        self._arguments: dict[str, Any] = {
            "url": url, "namespace": namespace, "settings": settings, "durability": durability,
        }  # fmt: skip
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        self._client: asynchronous.Client | None = None

    def open(self) -> Self:
        """Connect; later calls do it by themselves."""
        self._opened()
        return self

    def close(self) -> None:
        """Release every connection and end the background thread."""
        self._leave_to_parent()
        with self._lock:
            thread, client = self._thread, self._client
            self._thread = self._client = None
        if thread is not None:
            if client is not None:
                thread.call(client.close())
            thread.close()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> tuple[_LoopThread, asynchronous.Client]:
        self._leave_to_parent()
        with self._lock:
            if self._thread is None or self._client is None:
                thread = _LoopThread()
                client = asynchronous.Client(**self._arguments)
                try:
                    thread.call(client.open())
                except BaseException:
                    thread.close()
                    raise
                self._thread, self._client = thread, client
            return self._thread, self._client

    def _leave_to_parent(self) -> None:
        """After a fork thread and sockets belong to the parent, and so does whoever held the lock."""
        if self._pid != os.getpid():
            # dropped, they would close themselves, and the event loop's epoll object is one with the parent's
            _inherited.append((self._thread, self._client))
            self._pid, self._lock, self._thread, self._client = os.getpid(), threading.Lock(), None, None

    def submit(
        self, workflow: Workflow[In, Out] | Task[..., Any, Out] | str, input: Any = None, **options: Any
    ) -> Run[Out]:
        """Submit one run; arguments and errors as `redisflow.Client.submit`."""
        anything: Any = workflow
        runs: list[Run[Out]] = self.submit_many(anything, [Submission(input, **options)])
        return runs[0]

    def submit_many(
        self, workflow: Workflow[In, Out] | Task[..., Any, Out] | str, inputs: Iterable[In | Submission[In]]
    ) -> list[Run[Out]]:
        """Submit many runs in one round trip for hundreds; as `redisflow.Client.submit_many`."""
        thread, client = self._opened()
        submit: Any = client.submit_many
        runs: list[asynchronous.Run[Any]] = thread.call(submit(workflow, inputs))
        return [Run(run.id, run.is_new, self, run._workflow) for run in runs]

    def run(self, run_id: str) -> Run[Any]:
        """A run by its id; nothing is looked up."""
        return Run(run_id, False, self)

    def result(
        self, run_id: str, *, timeout: Duration | None = None, workflow: Workflow[Any, Any] | None = None
    ) -> Any:
        """Wait for a run's end and give its output; as `redisflow.Client.result`."""
        thread, client = self._opened()
        return thread.call(client.result(run_id, timeout=timeout, workflow=workflow))

    def status(self, run_id: str) -> RunState:
        """State of a run.

        Raises:
            RunNotFound: there is none.
        """
        thread, client = self._opened()
        return thread.call(client.status(run_id))

    def steps(self, run_id: str) -> dict[str, StepState]:
        """State of every step of a run that has begun."""
        thread, client = self._opened()
        return thread.call(client.steps(run_id))

    def events(self, run_id: str) -> Iterator[BaseEvent]:
        """Events of a run from the first, live, until it ends."""
        thread, client = self._opened()
        stream: AsyncIterator[BaseEvent] = client.events(run_id)
        try:
            while True:
                try:
                    yield thread.call(_next(stream))
                except StopAsyncIteration:
                    return
        finally:
            thread.call(stream.aclose())  # type: ignore[attr-defined]

    def cancel(self, run_id: str, reason: str | None = None) -> CancelResult:
        """Cancel a run; one that has ended is left as it is, and the answer says so."""
        thread, client = self._opened()
        return thread.call(client.cancel(run_id, reason))

    def retry(self, run_id: str, reason: str | None = None) -> int:
        """Start a failed run anew where it stopped; as `redisflow.Client.retry`."""
        thread, client = self._opened()
        return thread.call(client.retry(run_id, reason))

    def rerun(self, run_id: str, from_step: str, input: Any = None) -> Run[Any]:
        """A new run that repeats a step and all that depends on it; as `redisflow.Client.rerun`."""
        thread, client = self._opened()
        return Run(thread.call(client.rerun(run_id, from_step, input)).id, True, self)

    def runs(
        self, workflow: str | None = None, *, status: Sequence[str] = (), tags: Sequence[str] = (), limit: int | None = 50,
        offset: int = 0,
    ) -> tuple[list[RunState], int]:  # fmt: skip
        """Runs newest first, and their total before paging."""
        thread, client = self._opened()
        return thread.call(client.runs(workflow, status=status, tags=tags, limit=limit, offset=offset))


async def _next(stream: AsyncIterator[T]) -> T:
    return await anext(stream)
