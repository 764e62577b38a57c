"""Runs by what no index counts: a part of their id, or a time beside tags. Page by page from a cursor, each page a bounded walk.

The sorted sets of runs are scored by createdAt, so a span of time is a range of them, and a page begins right behind the last run
of the page before, whatever comes or goes meanwhile. A walk looks at about `budget` runs; where it has not found a page by then it
says how far it came, and the cursor goes on from there. Nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

from redisflow.backend import keys as k
from redisflow.backend.checks import check_integer
from redisflow.backend.redis.listing import RESERVED, Listing, Scored, Source, check_filters
from redisflow.model.errors import InvalidArgument

BUDGET = 5_000
"""Runs that a page looks at, at most about so many."""
LEAST = 100
"""Runs of each set that are read at a time, at least."""


class Cursor(NamedTuple):
    """A place among the runs: behind the run of this id, created at that time (µs)."""

    at: int
    run_id: str

    def __str__(self) -> str:
        """As it stands in an address."""
        return f"{self.at}-{self.run_id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """A cursor from its text.

        Raises:
            InvalidArgument: it is none.
        """
        at, _, run_id = text.partition("-")
        if not (at.isascii() and at.isdecimal() and len(at) < 17):
            raise InvalidArgument("cursor", text, "the cursor of the page before")
        return cls(int(at), k.check_run_id(run_id, "cursor"))


class FoundRuns(NamedTuple):
    """A page of ids, newest first.

    Attributes:
        ids: runs that fit, at most the limit.
        cursor: where the next page begins; None where nothing is left.
        looked_at: runs looked at on this page and those before, of the `among` that the indexes narrow it down to.
        among: that number.
    """

    ids: list[str]
    cursor: Cursor | None
    looked_at: int
    among: int


class _Walk(NamedTuple):
    """A set that is walked, and those that its runs must stand in too."""

    walked: str
    others: tuple[str, ...]


class Search(Listing):
    """Ids of runs by everything that the lists filter by."""

    async def search_ids(
        self, workflow_slug: str | None = None, statuses: Iterable[str] = (), tags: Iterable[str] = (), *, prefix: str = "",
        start_us: int | None = None, end_us: int | None = None, cursor: str | None = None, limit: int = 50, budget: int = BUDGET,
    ) -> FoundRuns:  # fmt: skip
        """A page of run ids, newest first; a whole id is looked up directly.

        Args:
            workflow_slug: only runs of this workflow.
            statuses: only runs in one of these; empty: all.
            tags: only runs with all of these.
            prefix: what the id begins with.
            start_us: first createdAt that counts (µs).
            end_us: last createdAt that counts (µs).
            cursor: that of the page before.
            limit: runs at most.
            budget: runs to look at, about.

        Raises:
            InvalidArgument: names the argument, its value and what is allowed.
        """
        statuses, tags = check_filters(statuses, tags)
        check_integer("limit", limit)
        for name, value in (("start_us", start_us), ("end_us", end_us)):
            check_integer(name, value, optional=True)
        after = Cursor.parse(cursor) if cursor else None
        if prefix and after is None and await self._is_run(prefix):
            return FoundRuns([prefix], None, 1, 1)
        slugs = await self.slugs_with_runs() if workflow_slug is None else [k.check_slug(workflow_slug)]
        wanted = set(statuses) - {RESERVED}
        sources = await self._counted(self._sources(slugs, wanted, bool(statuses), sorted(set(tags))))
        if "." in prefix:  # the route is whole, and names the partition
            own = self.keys_of(prefix).prefix
            sources = [source for source in sources if source.keys[0].startswith(own)]
        walks = [_walk_of(source) for source in sources]
        span = (start_us or 0, end_us if end_us is not None else 2**53)
        found = await self._walk(walks, span, prefix.encode(), after, limit, budget)
        among, behind = await self._measure(walks, span, found[1])
        return FoundRuns([run_id.decode() for _, run_id in found[0]], found[1], among - behind, among)

    async def _is_run(self, text: str) -> bool:
        try:
            key = self.keys_of(k.check_run_id(text)).run(text)
        except InvalidArgument:
            return False
        return bool(await self.server.retry(lambda: self.client.exists(key)))

    async def _walk(
        self,
        walks: Sequence[_Walk],
        span: tuple[int, int],
        prefix: bytes,
        after: Cursor | None,
        limit: int,
        budget: int,
    ) -> tuple[list[Scored], Cursor | None]:
        """Runs that fit, newest first, and where to go on."""
        found: list[Scored] = []
        looked = 0
        chunk = max(LEAST, limit + 1, budget // (4 * len(walks))) if walks else LEAST
        while True:
            reads = await self._read_on(walks, span, after, chunk)
            looked += sum(len(members) for members, _ in reads)
            ends = [members[-1] for members, more in reads if more]
            horizon = max(ends, default=None)  # what is older may have newer runs of another set before it
            fit = await asyncio.gather(
                *(self._fitting(walk, members, prefix) for walk, (members, _) in zip(walks, reads, strict=True))
            )
            found += sorted((run for runs in fit for run in runs if horizon is None or run >= horizon), reverse=True)
            if len(found) > limit or (len(found) == limit and horizon is not None):
                return found[:limit], _cursor(found[limit - 1]) if limit else after
            if horizon is None:
                return found, None
            after = _cursor(horizon)
            if looked >= budget:
                return found, after

    async def _read_on(
        self, walks: Sequence[_Walk], span: tuple[int, int], after: Cursor | None, chunk: int
    ) -> list[tuple[list[Scored], bool]]:
        """The next runs of each set behind the cursor, and whether there may be more."""
        return list(await asyncio.gather(*(self._read_set(walk.walked, span, after, chunk) for walk in walks)))

    async def _read_set(
        self, key: str, span: tuple[int, int], after: Cursor | None, chunk: int
    ) -> tuple[list[Scored], bool]:
        newest = span[1] if after is None else min(span[1], after.at)
        limit = None if after is None else (float(after.at), after.run_id.encode())
        first = 0
        while True:  # again only where a whole chunk shares the time of the cursor

            async def read(start: int = first) -> Any:
                return await self.client.zrevrangebyscore(
                    key, newest, span[0], start=start, num=chunk, withscores=True
                )  # fmt: skip

            page = [(at, run_id) for run_id, at in await self.server.retry(read)]
            behind = [run for run in page if limit is None or run < limit]
            if behind or len(page) < chunk:
                return behind, len(page) == chunk
            first += chunk

    async def _fitting(self, walk: _Walk, members: list[Scored], prefix: bytes) -> list[Scored]:
        begun = [run for run in members if run[1].startswith(prefix)]
        if not walk.others or not begun:
            return begun
        standing = await self._standing_in(walk.others, [run_id for _, run_id in begun])
        return [run for run in begun if run[1] in standing]

    async def _measure(self, walks: Sequence[_Walk], span: tuple[int, int], cursor: Cursor | None) -> tuple[int, int]:
        """Runs of the walked sets in the span, and those of them behind the cursor."""

        async def read() -> list[int]:
            pipe = self.client.pipeline(transaction=False)
            for walk in walks:
                pipe.zcount(walk.walked, *span)
                if cursor is not None:
                    pipe.zcount(walk.walked, span[0], f"({cursor.at}")
            found: list[int] = await pipe.execute()
            return found

        counts = await self.server.retry(read) if walks else []
        return (sum(counts), 0) if cursor is None else (sum(counts[::2]), sum(counts[1::2]))


def _walk_of(source: Source) -> _Walk:
    walked = source.keys[source.sizes.index(min(source.sizes))]
    return _Walk(walked, tuple(key for key in source.keys if key != walked))


def _cursor(run: Scored) -> Cursor:
    return Cursor(int(run[0]), run[1].decode())
