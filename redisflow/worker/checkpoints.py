"""Checkpoints: parts of a step that run once, whatever happens to the attempt that ran them.

Each is named, and calls of one name are numbered from 0 in the order in which they are made, so that a later attempt finds its
own again. What the caller gets is read back from JSON also the first time: a replay is then no different. The same code serves the
worker and the process of an isolated step; only the store differs.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.recording import Recording
from redisflow.backend.replies import Reply
from redisflow.codec import encode_payload, pack
from redisflow.define import Skip
from redisflow.define.payloads import value_reader
from redisflow.model.errors import InvalidArgument, TransitionRefused, UsageError
from redisflow.model.events import StepError
from redisflow.model.fingerprints import describe_exception

T = TypeVar("T")


class Store(Protocol):
    """Where the checkpoints of one execution are kept."""

    async def load(self) -> dict[tuple[str, int], str]:
        """JSON text of what earlier attempts finished, by name and number."""

    async def save(self, name: str, number: int, text: str) -> None:
        """Record a finished one. Raises TransitionRefused where the lease is gone."""

    async def save_failure(self, name: str, number: int, error: dict[str, Any]) -> None:
        """Record that one raised; `error` has name, message and stack."""


class StreamStore:
    """The store of a worker: the run's stream."""

    def __init__(self, backend: RedisBackend, run: str, step: str, attempt: int, lease: int) -> None:
        self._backend = backend
        self._run = run
        self._step = step
        self._attempt = attempt
        self._lease = lease

    async def load(self) -> dict[tuple[str, int], str]:
        """Read the whole stream of the run."""
        return await Recording.load_checkpoints(self._backend, self._run, self._step)

    async def save(self, name: str, number: int, text: str) -> None:
        """Append StepCheckpoint."""
        reply = await self._record("StepCheckpoint", {"nm": name, "sn": number, "a": self._attempt}, text)
        if reply is not Reply.OK:
            raise TransitionRefused(f"checkpoint {name!r} is not recorded, its step has lost its lease ({reply.name})")

    async def save_failure(self, name: str, number: int, error: dict[str, Any]) -> None:
        """Append StepCheckpointFailed; a lost lease is no matter, since the step is failing anyway."""
        fields = {"nm": name, "sn": number, "a": self._attempt, "e": error}
        await self._record("StepCheckpointFailed", fields, "")

    async def _record(self, kind: str, fields: dict[str, Any], payload: str) -> Reply:
        note = (kind, pack(fields), payload)
        return await Recording.record_notes(self._backend, self._run, self._step, self._lease, [note])


class Checkpoints:
    """The checkpoints of one execution.

    Args:
        store: where they are kept.
        loop: runs the store.
        limit: cap of one value's JSON text in bytes.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self._store = store
        self._loop = loop
        self._limit = limit
        self._next: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._loading: asyncio.Task[dict[tuple[str, int], str]] | None = None

    async def run(self, name: str, fn: Callable[[], Any]) -> Any:
        """See `StepContext.checkpoint`."""
        number, read = self._number(name), value_reader(fn)
        text = await self._earlier(name, number)
        if text is None:
            try:
                value = fn()
                if inspect.isawaitable(value):
                    value = await value
                text = self._encode(name, value)
            except Exception as error:
                await self._failed(name, number, error)
                raise
            await self._store.save(name, number, text)
        return read(text)

    def run_sync(self, name: str, fn: Callable[[], Any]) -> Any:
        """See `StepContext.checkpoint_sync`."""
        number, read = self._number(name), value_reader(fn)
        text = self._wait(self._earlier(name, number))
        if text is None:
            try:
                text = self._encode(name, fn())
            except Exception as error:
                self._wait(self._failed(name, number, error))
                raise
            self._wait(self._store.save(name, number, text))
        return read(text)

    def _number(self, name: str) -> int:
        if not isinstance(name, str) or not 1 <= len(name) <= 200:
            raise InvalidArgument("name", name, "text of 1 to 200 characters")
        with self._lock:
            number = self._next[name]
            self._next[name] += 1
        return number

    async def _earlier(self, name: str, number: int) -> str | None:
        # also in a first attempt: one that a deploy handed back runs again under the same number
        if self._loading is None or (self._loading.done() and (self._loading.cancelled() or self._loading.exception())):
            self._loading = self._loop.create_task(self._store.load())
        return (await asyncio.shield(self._loading)).get((name, number))

    def _encode(self, name: str, value: Any) -> str:
        return encode_payload(value, what=f"checkpoint {name!r}", limit=self._limit)

    async def _failed(self, name: str, number: int, error: Exception) -> None:
        if isinstance(error, Skip):  # it says how the step ends, and is no failure
            return
        try:
            described = describe_exception(error)
        except Exception:  # noqa: BLE001 - an error whose description raises is still an error
            described = StepError(name=type(error).__name__, message="")
        stack = (described.stack or "")[-32_768:]
        shown = {"name": described.name, "message": described.message[:32_768], "stack": stack}
        try:
            await self._store.save_failure(name, number, shown)
        except Exception as trouble:  # noqa: BLE001 - what the body raised matters more
            error.add_note(f"(checkpoint {name!r} could not be recorded as failed: {trouble})")

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is not None:
            work.close()
            raise UsageError("checkpoint_sync is for plain functions: write `await ctx.checkpoint(...)` here")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
