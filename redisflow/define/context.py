"""What a running step can know of itself.

A protocol, not a class: the worker, the child process and the in-process runner each have their own, and a
unit test may pass any object with these attributes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar, overload

T = TypeVar("T")


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

    @overload
    async def checkpoint(self, name: str, fn: Callable[[], Awaitable[T]]) -> T: ...
    @overload
    async def checkpoint(self, name: str, fn: Callable[[], T]) -> T: ...
    async def checkpoint(self, name: str, fn: Callable[[], T | Awaitable[T]]) -> T:
        """Run a part of the step once: a later attempt gets its value without running it again.

        The value is read back from its JSON text, also the first time: as the return annotation of `fn` where it has
        one, else as plain dicts, lists, strings and numbers.

        Args:
            name: of the part, 1 to 200 characters. Calls of one name are told apart by their order, so that it may
                stand in a loop.
            fn: without arguments, plain or async.

        Raises:
            PayloadTooLarge: the value is over the cap.
            TransitionRefused: the step has lost its lease; what follows belongs to another attempt.
        """

    def checkpoint_sync(self, name: str, fn: Callable[[], T]) -> T:
        """`checkpoint` for plain functions, which run in a thread or a process of their own.

        Raises:
            UsageError: it is called on an event loop.
        """
