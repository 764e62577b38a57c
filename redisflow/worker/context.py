"""What a running step knows of itself, and what the worker knows of a running step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from redisflow.worker.checkpoints import Checkpoints
    from redisflow.worker.logs import StepLog


class Job:
    """One claimed step on its way through the worker.

    Attributes:
        partition: index of its partition.
        run, step: ids as bytes, as they came and go back.
        lease: µs; fences the outcome.
        key: run, step and lease: names this execution.
        number: plan number.
        slot: number of the slot it stands in, -1 once given back.
        stored: input, then dependency and output in turn, as the claim gave them.
        task: the task that runs it, where there is one.
        usage: what its process used, where it had one; see ResourceUsage.
        stopped: set when the run has stopped or the lease is gone: no outcome is wanted any more.
    """

    __slots__ = (
        "attempt",
        "context",
        "key",
        "lease",
        "number",
        "partition",
        "run",
        "slot",
        "started",
        "step",
        "stopped",
        "stored",
        "task",
        "usage",
    )

    def __init__(self, partition: int, lease: int, claimed: list[Any], slot: int) -> None:
        self.partition = partition
        self.run: bytes = claimed[0]
        self.step: bytes = claimed[1]
        self.number: int = claimed[2]
        self.attempt: int = claimed[3]
        self.stored = claimed[4:]
        self.lease = lease
        self.key = (self.run, self.step, lease)
        self.slot = slot
        self.started = 0.0
        self.stopped = False
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        self.usage: dict[str, int] | None = None


class Tools(Protocol):
    """Makes what a context hands out at first use."""

    def checkpoints(self, job: Job) -> Checkpoints:
        """Checkpoints of an execution."""

    def log(self, job: Job) -> StepLog:
        """Log of an execution."""


class Context:
    """`ctx` of a step; see `redisflow.StepContext`.

    Checkpoints and log are made at first use, as most steps need neither: `tools` makes them.
    """

    __slots__ = ("_checkpoints", "_job", "_tools", "log", "worker_id", "workflow")

    def __init__(self, job: Job, workflow: str, worker_id: str, tools: Tools) -> None:
        self._job = job
        self._tools = tools
        self._checkpoints: Checkpoints | None = None
        self.log: StepLog | None = None
        self.workflow = workflow
        self.worker_id = worker_id

    @property
    def run_id(self) -> str:
        """The run."""
        return self._job.run.decode()

    @property
    def step_id(self) -> str:
        """The step."""
        return self._job.step.decode()

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self._job.attempt

    @property
    def idempotency_key(self) -> str:
        """A key for calls to the outside, the same in every attempt of this step."""
        return f"{self.run_id}:{self.step_id}"

    @property
    def logger(self) -> logging.Logger:
        """Logger of the step."""
        return logging.getLogger(f"redisflow.step.{self.workflow}.{self.step_id}")

    @property
    def cancelled(self) -> bool:
        """The run has stopped, or the step was taken back: a thread should return soon."""
        return self._job.stopped

    @property
    def checkpoints(self) -> Checkpoints:
        """Those of this execution."""
        found = self._checkpoints
        if found is None:
            found = self._checkpoints = self._tools.checkpoints(self._job)
        return found

    async def checkpoint(self, name: str, fn: Callable[[], Any]) -> Any:
        """See `redisflow.StepContext.checkpoint`."""
        return await self.checkpoints.run(name, fn)

    def checkpoint_sync(self, name: str, fn: Callable[[], Any]) -> Any:
        """See `redisflow.StepContext.checkpoint_sync`."""
        return self.checkpoints.run_sync(name, fn)

    def write(self, stream: str, text: str) -> None:
        """Take what the step wrote to `stdout` or `stderr`; safe from any thread."""
        log = self.log
        if log is None:
            log = self._tools.log(self._job)
            if self.log is None:
                self.log = log
        self.log.write(stream, text)  # type: ignore[union-attr]
