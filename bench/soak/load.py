"""Clients of a soak: they submit, cancel, retry, rerun, and note what was acknowledged to them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field

from bench.soak.flows import FLOWS, chain, diamond
from redisflow import Client, Submission
from redisflow.model.errors import NotReplicated, RedisflowError, RunNotFound, TransitionRefused

FROM = {"chain": ["first", "second", "third"], "diamond": ["top", "left", "right", "join"]}


@dataclass
class Record:
    """What was acknowledged.

    Attributes:
        runs: id to slug of every run whose submission was acknowledged.
        keys: idempotency key to the run that was named for it.
        broken_keys: keys for which two runs were named.
        reruns: those of `runs` that came by a rerun, and when that was acknowledged; no replica confirmed them.
        cancelled: runs whose cancellation was acknowledged as such, and when.
        refused: errors of calls, so that nothing is known of what these did, and how often each came.
    """

    runs: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    broken_keys: list[str] = field(default_factory=list)
    reruns: dict[str, float] = field(default_factory=dict)
    cancelled: dict[str, float] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)


class Load:
    """Tasks that call at random, over one client.

    Args:
        client: opened.
        seed: of what they do.
        tasks: how many.
        pause: seconds between two calls of a task, on average.
    """

    def __init__(self, client: Client, seed: int, tasks: int, pause: float) -> None:
        self.record = Record()
        self._client = client
        self._pause = pause
        self._over = asyncio.Event()
        self._count = 0
        self._tasks = [asyncio.create_task(self._run(random.Random(f"{seed} {number}"))) for number in range(tasks)]

    async def stop(self) -> None:
        """Let the calls under way end."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _run(self, chance: random.Random) -> None:
        acts = [
            self._submit,
            self._submit,
            self._submit_many,
            self._submit_keyed,
            self._cancel,
            self._again,
            self._rerun,
        ]
        while not self._over.is_set():
            try:
                await chance.choice(acts)(chance)
            except (TransitionRefused, RunNotFound):
                continue
            except RedisflowError as error:
                self.record.refused[f"{type(error).__name__}: {_gist(error)}"] += 1
            await asyncio.sleep(chance.uniform(0, 2 * self._pause))

    def _input(self) -> dict[str, int]:
        self._count += 1
        return {"n": self._count}

    async def _submit(self, chance: random.Random) -> None:
        flow = chance.choice(FLOWS)
        delay = chance.choice((None, None, "100ms", "2s"))
        run = await self._client.submit(flow, self._input(), delay=delay, priority=chance.choice((0, 0, 5, -5)))
        self.record.runs[run.id] = flow.slug

    async def _submit_many(self, chance: random.Random) -> None:
        flow = chance.choice(FLOWS)
        for run in await self._client.submit_many(flow, [self._input() for _ in range(10)]):
            self.record.runs[run.id] = flow.slug

    async def _submit_keyed(self, chance: random.Random) -> None:
        """The same key twice, maybe at once: one run."""
        key = f"key {chance.randrange(100_000)}"
        given = [Submission(self._input(), key=key), Submission(self._input(), key=key)]
        answers = await asyncio.gather(*(self._client.submit_many(chain, [item]) for item in given))
        for (run,) in answers:
            self.record.runs[run.id] = chain.slug
            if self.record.keys.setdefault(key, run.id) != run.id:
                self.record.broken_keys.append(key)

    def _any(self, chance: random.Random) -> str | None:
        known = list(self.record.runs)
        return chance.choice(known[-500:]) if known else None

    async def _cancel(self, chance: random.Random) -> None:
        run_id = self._any(chance)
        if run_id and chance.random() < 0.5 and (await self._client.cancel(run_id, "the soak")).cancelled:
            self.record.cancelled[run_id] = time.monotonic()

    async def _again(self, chance: random.Random) -> None:
        failed, _ = await self._client.runs(status=["failed"], limit=5)
        for state in failed:
            await self._client.retry(state.run_id)

    async def _rerun(self, chance: random.Random) -> None:
        run_id = self._any(chance)
        slug = self.record.runs[run_id] if run_id else ""
        if run_id and slug in (chain.slug, diamond.slug):
            run = await self._client.rerun(run_id, chance.choice(FROM[slug]))
            self.record.runs[run.id] = slug
            self.record.reruns[run.id] = time.monotonic()


def _gist(error: RedisflowError) -> str:
    """What it says, without the ids that would make each one different."""
    text = str(error)
    return "not confirmed by a replica" if isinstance(error, NotReplicated) else text[:120]
