"""Single submissions that are under way at once go out together.

A lone submission goes out at once. What arrives while calls are under way waits, and goes in the next: two are under way at a
time, so that Redis works on one while the answers to the other are handled here, and each takes half of what there is. So many at
once cost a few round trips for all of them; each still has its own result or error. Where there was a crowd, the next call waits
for the end of the event loop's round, since those that an answer woke submit again in the same round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.runs import Prepared
from redisflow.backend.types import SubmitResult
from redisflow.model.workflow import Plan

CALLS = 2
Waiting = tuple[Plan, Prepared, "asyncio.Future[SubmitResult]"]


class Coalescer:
    """Gathers submissions for a backend; belongs to one event loop."""

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._waiting: deque[Waiting] = deque()
        self._calls = 0  # under way
        self._sent = 0  # submissions in them
        self._crowded = False  # the last call was not the only one, or had more than one
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, plan: Plan, prepared: Prepared) -> SubmitResult:
        """As `RedisBackend.submit_one`.

        Raises:
            RunExists: of this submission alone.
        """
        if self._calls or self._crowded:
            future: asyncio.Future[SubmitResult] = asyncio.get_running_loop().create_future()
            self._waiting.append((plan, prepared, future))
            self._go_on()
            return await future
        self._calls, self._sent = 1, 1
        try:
            return await self._backend.submit_one(plan, prepared)
        finally:
            self._end(1)

    def _go_on(self) -> None:
        if self._waiting and self._calls < CALLS:
            self._calls += 1
            task = asyncio.create_task(self._submit_waiting())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _end(self, count: int) -> None:
        self._calls -= 1
        self._sent -= count
        self._go_on()

    async def _submit_waiting(self) -> None:
        count = min(len(self._waiting), (len(self._waiting) + self._sent + 1) // 2)
        batch = [self._waiting.popleft() for _ in range(count)]
        self._sent += count
        self._crowded = self._sent > 1
        groups: dict[str, list[Waiting]] = {}
        for each in batch:
            if not each[2].done():
                groups.setdefault(each[0].version, []).append(each)
        try:
            for group in groups.values():
                await self._submit_group(group)
        finally:
            for _, _, future in batch:
                future.cancel()  # only where this task was cancelled: all others have their result
            self._end(count)

    async def _submit_group(self, group: list[Waiting]) -> None:
        results: Sequence[SubmitResult | Exception]
        try:
            results = await self._backend.submit_each(group[0][0], [prepared for _, prepared, _ in group])
        except Exception as error:  # noqa: BLE001 -- it is each caller's to handle
            results = [error] * len(group)
        for (_, _, future), result in zip(group, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
