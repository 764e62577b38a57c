"""A worker: start, run, drain.

    async with Worker(client, [checkout]) as worker: …      inside a program or test
    redisflow worker flows.py                                as a process

It serves the queues of the workflows it has. Stopping drains: no new claims, running steps get `drain_timeout` to end, and what
has not ended by then is handed back unharmed, so a deploy burns no attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self

from redisflow import tracing
from redisflow.backend.beats import BeatLine
from redisflow.backend.keys import check_slug
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.turns import Handover, TurnLink
from redisflow.codec import pack
from redisflow.define import Resource, Task, Workflow
from redisflow.model.errors import RedisflowError, UsageError
from redisflow.worker.capture import capture
from redisflow.worker.context import Job
from redisflow.worker.dispatcher import Dispatcher
from redisflow.worker.executors import Executors
from redisflow.worker.heartbeat import Heartbeat
from redisflow.worker.isolate import check_isolated
from redisflow.worker.traces import StepTraces

log = logging.getLogger("redisflow.worker")


class Worker:
    """Runs steps of the given workflows.

    Args:
        backend: opened, or anything with an opened `backend`, such as a `Client`.
        workflows: what it can run.
        concurrency: steps at once; default: the settings'.
        queues: queues to serve in place of those of the workflows.
        worker_id: a name for people; a nonce of this process is added. Default: host and pid.
        resources: values to use in place of opening resources, for tests.
    """

    def __init__(
        self, backend: Any, workflows: Iterable[Workflow[Any, Any] | Task[..., Any, Any]], *, concurrency: int | None = None,
        queues: Sequence[str] | None = None, worker_id: str | None = None,
        resources: Mapping[Resource[Any], Any] | None = None,
    ) -> None:  # fmt: skip
        self._source = backend
        flows = [flow.workflow if isinstance(flow, Task) else flow for flow in workflows]
        self.workflows = {flow.slug: flow for flow in flows}
        if len(self.workflows) != len(flows):
            raise UsageError("two workflows have the same slug: give each its own")
        if not flows:
            raise UsageError("a worker needs at least one workflow")
        self._wanted_concurrency = concurrency
        own = {step.queue for flow in flows for step in flow.plan.steps}
        self.queues = [check_slug(queue, "queues") for queue in queues] if queues else sorted(own)
        name = worker_id or f"{socket.gethostname().split('.')[0]}-{os.getpid()}"
        self.id = f"{check_slug(name, 'worker_id')}.{secrets.token_hex(3)}"
        self._given_resources = resources
        self._jobs: dict[tuple[bytes, bytes, int], Job] = {}
        self._failure: RedisflowError | None = None
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._hurry = self._captured = False
        self.backend: RedisBackend

    @property
    def running(self) -> int:
        """Steps that run here now."""
        return len(self._jobs)

    @property
    def links(self) -> list[TurnLink]:
        """Its line to each partition, once started."""
        return self._dispatcher.links

    @property
    def heartbeat_age(self) -> float:
        """Seconds since every partition answered a heartbeat."""
        return time.monotonic() - self._heartbeat.beaten_at

    @property
    def asleep(self) -> bool:
        """It stands in every partition among those to be woken, and nothing is under way."""
        return self._dispatcher.idle and all(link.asleep for link in self._dispatcher.links)

    async def start(self) -> None:
        """Register the workflows, open the lines, and begin to claim.

        Raises:
            UsageError: an isolated step belongs to a workflow that its process could not import.
        """
        check_isolated(self.workflows.values())
        self.backend = getattr(self._source, "backend", self._source)
        settings = self.backend.settings
        self.concurrency = self._wanted_concurrency or settings.concurrency
        for flow in self.workflows.values():
            await self.backend.register_plan(flow.plan, location=flow.location)
        self._loop = asyncio.get_running_loop()
        traces = StepTraces(self.backend) if tracing.enabled() else None
        self._dispatcher = Dispatcher(
            self.backend, worker=self.id, queues=self.queues, concurrency=self.concurrency,
            body=pack({"wi": self.id, "wc": self.concurrency})[1:], start=self._start,
            settled=self._settled if traces is None else traces.watch_settled(self._settled),
            quiet=self._changed.set, fatal=self._fatal,
        )  # fmt: skip
        self._executors = Executors(
            self.backend, self.workflows, worker_id=self.id, report=self._dispatcher.report,
            resources=self._given_resources, traces=traces,
        )  # fmt: skip
        interval = settings.heartbeat_interval
        server, partitions = self.backend.server, self.backend.partitions
        lines = [
            BeatLine(self.backend, index, self.id, await server.address_of(keys.meta), interval / 1e6)
            for index, keys in enumerate(partitions)
        ]
        self._heartbeat = Heartbeat(
            lines, jobs=self._all_jobs, info=self._info, interval_us=interval,
            lost=lambda job, reply: self._from_thread(self._lost, job, reply),
            undelivered=lambda: self._from_thread(self._dispatcher.follow),
        )  # fmt: skip
        self._heartbeat.start()
        for index, keys in enumerate(partitions):
            await self.backend.listener.subscribe(keys.wake_channel(self.id), partial(self._on_wake, index))
        capture.acquire()  # before the first claim can be answered, else what its step prints would be lost
        self._captured = True
        try:
            await self._dispatcher.open()
        except BaseException:
            self._release_output()
            raise
        log.info("worker %s serves %s with %d slots", self.id, ", ".join(self.queues), self.concurrency)

    async def run(self) -> None:
        """Run until `stop` is called or the worker cannot go on, then drain.

        Raises:
            NamespaceLost: the server was flushed or replaced.
        """
        await self.start()
        await self.stopped()
        await self.drain()
        if self._failure is not None:
            raise self._failure

    async def stopped(self) -> None:
        """Wait until `stop` is called or the worker cannot go on."""
        await self._stopping.wait()

    def stop(self) -> None:
        """Ask `run` to drain and return; a second call cuts the drain short."""
        self._hurry = self._stopping.is_set()
        self._stopping.set()

    def stop_on_signals(self) -> None:
        """Let SIGTERM and SIGINT drain the worker; a second signal hands everything back at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)

    async def drain(self) -> None:
        """Stop claiming, wait for running steps, hand back the rest, close."""
        self._dispatcher.drain()
        timeout = self.backend.settings.drain_timeout / 1e6
        if self._jobs and self._failure is None:
            log.info("draining: %d steps still run", len(self._jobs))
            await self._until_idle(timeout)
        for job in self._all_jobs():
            if job.slot >= 0 and not job.stopped:
                job.stopped = True
                if job.task is not None:
                    job.task.cancel()
                self._dispatcher.report(job, "l", b"", b"", "drain")
        if self._failure is None:
            self._hurry = False
            await self._until_idle(5.0)
        self._heartbeat.stop()
        for keys in self.backend.partitions:
            await self.backend.listener.drop(keys.wake_channel(self.id))
        self._dispatcher.close()
        await self._executors.close()
        self._release_output()
        log.info("worker %s stopped", self.id)

    def _release_output(self) -> None:
        if self._captured:
            self._captured = False
            capture.release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        if self._failure is not None and error is None:
            raise self._failure

    async def _until_idle(self, timeout: float) -> None:
        """Wait until no step runs and every outcome is answered, the timeout (seconds), or a second `stop`."""
        until = self._loop.time() + timeout
        while (self._jobs or not self._dispatcher.idle) and not self._hurry and self._loop.time() < until:
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(0.05, max(0.0, until - self._loop.time()))):
                    await self._changed.wait()

    def _start(self, job: Job) -> None:
        self._jobs[job.key] = job
        self._executors.start(job)

    def _settled(self, job: Job, reply: Reply) -> None:
        self._jobs.pop(job.key, None)
        self._changed.set()

    def _all_jobs(self) -> list[Job]:
        while True:
            try:
                return list(self._jobs.values())
            except RuntimeError:  # changed by the loop while this thread copied
                continue

    def _info(self) -> str:
        return json.dumps(
            {"id": self.id, "host": socket.gethostname(), "pid": os.getpid(), "version": version("redisflow"),
             "concurrency": self.concurrency, "queues": self.queues, "workflows": sorted(self.workflows),
             "running": len(self._jobs)}
        )  # fmt: skip

    def _from_thread(self, call: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            log.debug("a heartbeat was answered after the worker's end")

    def _lost(self, job: Job, reply: Reply) -> None:
        """The lease of a job is gone, or its run has ended: no outcome is wanted."""
        if job.key not in self._jobs or job.stopped or job.slot < 0:
            return
        log.info("stopping a step: %s  run=%s step=%s", reply.name, job.run.decode(), job.step.decode())
        job.stopped = True
        if job.task is not None:
            job.task.cancel()
        self._dispatcher.give_back(job)
        self._settled(job, reply)
        self._dispatcher.wake(job.partition)

    def _on_wake(self, partition: int, message: bytes | None) -> None:
        if message is not None and message.startswith(b"h"):
            try:
                handover = Handover.unpack(message[1:])
            except ValueError:  # of another version: the next turn brings the step
                self._dispatcher.wake(partition)
            else:
                self._dispatcher.hand(partition, handover)
        elif message is not None and message.startswith(b"x"):
            run, step, lease = message[1:].split(b"|")
            job = self._jobs.get((run, step, int(lease)))
            if job is not None:
                self._lost(job, Reply.RUN_ENDED)
        else:
            self._dispatcher.wake(partition)

    def _fatal(self, error: RedisflowError) -> None:
        log.error("the worker cannot go on: %s", error)
        self._failure = error
        self._stopping.set()
