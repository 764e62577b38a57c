"""Single submissions that are under way at once go out together.

One call of `submit` is under way at a time; what arrives meanwhile waits and is the next call. So a lone submission is not held
back, and many at once cost one round trip for all of them. Each still has its own result or error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from redisflow.backend.redis import RedisBackend
from redisflow.backend.types import Submission, SubmitResult
from redisflow.model.errors import RedisflowError
from redisflow.model.workflow import Plan

Waiting = tuple[Submission, "asyncio.Future[SubmitResult]"]


class Coalescer:
    """Gathers submissions for a backend; belongs to one event loop."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._waiting: dict[str, tuple[Plan, list[Waiting]]] = {}
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    async def submit(self, plan: Plan, submission: Submission) -> SubmitResult:
        """As `Backend.submit` of one run.

        Raises:
            InvalidArgument, PayloadTooLarge, RunExists: of this submission alone.
        """
        self._backend.check_submission(plan, submission)
        if not self._busy:
            self._busy = True
            try:
                (result,) = await self._backend.submit_each(plan, [submission])
            finally:
                self._go_on()
            if isinstance(result, RedisflowError):
                raise result
            return result
        future: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(plan.version, (plan, []))[1].append((submission, future))
        return await future

    def _go_on(self) -> None:
        if self._waiting:
            self._task = asyncio.create_task(self._submit_waiting())
        else:
            self._busy = False

    async def _submit_waiting(self) -> None:
        groups, self._waiting = self._waiting, {}
        try:
            for plan, waiting in groups.values():
                await self._submit_group(plan, [each for each in waiting if not each[1].done()])
        finally:
            for _, waiting in groups.values():
                for _, future in waiting:
                    future.cancel()  # only where this task was cancelled: all others have their result
            self._go_on()

    async def _submit_group(self, plan: Plan, waiting: list[Waiting]) -> None:
        results: Sequence[SubmitResult | Exception]
        try:
            results = await self._backend.submit_each(plan, [submission for submission, _ in waiting])
        except Exception as error:  # noqa: BLE001 -- it is each caller's to handle
            results = [error] * len(waiting)
        for (_, future), result in zip(waiting, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
