"""What a running step knows of itself, and what the worker knows of a running step."""

from __future__ import annotations

import asyncio
import logging
from typing import Any


class Job:
    """One claimed step on its way through the worker.

    Attributes:
        partition: index of its partition.
        run, step: ids as bytes, as they came and go back.
        lease: µs; fences the outcome.
        number: plan number.
        slot: number of the slot it stands in, -1 once given back.
        stored: input, then dependency and output in turn, as the claim gave them.
        task: the task that runs it, where there is one.
        stopped: set when the run has stopped or the lease is gone: no outcome is wanted any more.
    """

    __slots__ = (
        "attempt",
        "context",
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
    )

    def __init__(self, partition: int, lease: int, claimed: list[Any], slot: int) -> None:
        self.partition = partition
        self.run: bytes = claimed[0]
        self.step: bytes = claimed[1]
        self.number: int = claimed[2]
        self.attempt: int = claimed[3]
        self.stored = claimed[4:]
        self.lease = lease
        self.slot = slot
        self.started = 0.0
        self.stopped = False
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None

    @property
    def key(self) -> tuple[bytes, bytes, int]:
        """Run, step and lease: names this execution."""
        return self.run, self.step, self.lease


class Context:
    """`ctx` of a step; see `redisflow.StepContext`."""

    __slots__ = ("_job", "worker_id", "workflow")

    def __init__(self, job: Job, workflow: str, worker_id: str) -> None:
        self._job = job
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
