"""What a running step can know of itself.

A protocol, not a class: the worker, the child process and the in-process runner each have their own, and a
unit test may pass any object with these attributes.
"""

from __future__ import annotations

import logging
from typing import Protocol


class StepContext(Protocol):
    """The execution that a step runs in; a parameter named `ctx`, or annotated with this, receives it."""

    @property
    def workflow(self) -> str:
        """Slug of the workflow."""

    @property
    def run_id(self) -> str:
        """The run."""

    @property
    def step_id(self) -> str:
        """The step."""

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1; attempts lost to a crash count."""

    @property
    def idempotency_key(self) -> str:
        """`<run id>:<step id>`: the same in every attempt, for calls to services that take such a key."""

    @property
    def worker_id(self) -> str:
        """The worker that runs this attempt."""

    @property
    def logger(self) -> logging.Logger:
        """A standard logger; what is logged here becomes part of the run's history."""

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should give up. An `async def` is cancelled by itself; a thread has to look
        here.
        """
