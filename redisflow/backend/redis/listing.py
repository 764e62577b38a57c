"""Pages of run ids, newest first, with totals: from indexes, and without taking whole indexes over the wire.

A **source** is one or several sorted sets of runs by createdAt in one partition; its runs are those that stand in all of them.
Runs by status are sources of one set, runs by tags of several. Totals are cardinalities that the server counts. A page far down
several single sets begins at a time found by bisection; a page of an intersection walks its smallest set from the nearer end and
asks the others, unless the matches are so few that the server may as well give them all. Nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from redisflow.backend import keys as k
from redisflow.backend.checks import check_integer, check_list, check_words
from redisflow.backend.redis.header import STATUSES
from redisflow.backend.redis.registry import Registry
from redisflow.model.errors import InvalidArgument

RESERVED = "claimed"  # a status of the contract that no run is in
NEAR = 500
"""Runs of each set that may be read in vain ahead of a page; a page further down is looked for by time."""
FEW = 2_000
"""Matches of an intersection that are taken all at once where walking to them would be longer."""
CHUNK = 4_000
"""Members of a set asked for at a time, at most."""
ABREAST = 16
"""Intersections looked through at a time."""
Scored = tuple[float, bytes]


class Source(NamedTuple):
    """Sorted sets of a partition, their sizes, and how many runs stand in all of them."""

    keys: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    total: int = 0


class Listing(Registry):
    """Ids of runs by workflow, status and tags."""

    async def newest_ids(
        self,
        workflow_slug: str | None,
        statuses: Iterable[str],
        tags: Iterable[str],
        limit: int | None,
        offset: int,
    ) -> tuple[list[str], int]:
        """A page of run ids, newest first, and their total before paging.

        Args:
            workflow_slug: only runs of this workflow.
            statuses: only runs in one of these; empty: all.
            tags: only runs with all of these.
            limit: runs at most; None for all.
            offset: runs to pass over.

        Raises:
            InvalidArgument: names the argument, its value and what is allowed.
        """
        statuses, tags = check_filters(statuses, tags)
        check_integer("limit", limit, optional=True)
        check_integer("offset", offset)
        slugs = await self.slugs_with_runs() if workflow_slug is None else [k.check_slug(workflow_slug)]
        sources = await self._counted(
            self._sources(slugs, set(statuses) - {RESERVED}, bool(statuses), sorted(set(tags)))
        )
        total = sum(source.total for source in sources)
        end = total if limit is None else min(total, offset + limit)
        if offset >= end:
            return [], total
        if all(len(source.keys) == 1 for source in sources):
            found, passed = await self._of_sets([source.keys[0] for source in sources], offset, end)
            # equal times stand as Redis orders them, so that pages neither overlap nor leave a run out
            found.sort(reverse=True)
            return _ids(found[offset - passed : end - passed]), total
        if end > total - offset:  # nearer to the oldest run, so it is looked for from there
            found = sorted(await self._of_all(sources, total - offset, newest=False))
            return _ids(found[total - end : total - offset][::-1]), total
        found = sorted(await self._of_all(sources, end, newest=True), reverse=True)
        return _ids(found[offset:end]), total

    async def slugs_with_runs(self) -> list[str]:
        """Workflows that runs may belong to: registered, submitted to a partition, saved, or with a queue of that name."""

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for keys in self.partitions:
                pipe.hvals(keys.plans)
                pipe.zrange(keys.levels, 0, -1)
            found: list[Any] = await pipe.execute()
            return found

        replies = await self.server.retry(read)
        slugs = {*(await self.workflow_slugs()), *(await self.noted_slugs())}
        for partition, (numbers, levels) in enumerate(zip(replies[::2], replies[1::2], strict=True)):
            slugs.update([(await self.plan_info(partition, int(number))).slug for number in numbers])
            slugs.update(member.decode().rpartition(":")[0] for member in levels)
        return sorted(slugs)

    def _sources(self, slugs: Sequence[str], statuses: set[str], narrowed: bool, tags: Sequence[str]) -> list[Source]:
        """Runs with a tag are in some status: where any will do, only tags are asked."""
        any_status = not narrowed or statuses == set(STATUSES.values())
        sources = []
        for keys in self.partitions:
            for slug in slugs:
                tagged = tuple(keys.tag(slug, tag) for tag in tags)
                if tags and any_status:
                    sources.append(Source(tagged))
                else:
                    wanted = STATUSES.values() if any_status else sorted(statuses)
                    sources += [Source((keys.index(slug, status), *tagged)) for status in wanted]
        return sources

    async def _counted(self, sources: Sequence[Source]) -> list[Source]:
        """Those sources that have runs, with their sizes."""

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for source in sources:
                for key in source.keys:
                    pipe.zcard(key)
                if len(source.keys) > 1:
                    pipe.zintercard(len(source.keys), source.keys)
            found: list[Any] = await pipe.execute()
            return found

        replies = iter(await self.server.retry(read) if sources else [])
        counted = []
        for source in sources:
            sizes = tuple(next(replies) for _ in source.keys)
            total = next(replies) if len(sizes) > 1 else sizes[0]
            if total:
                counted.append(Source(source.keys, sizes, total))
        return counted

    async def _of_sets(self, keys: Sequence[str], offset: int, end: int) -> tuple[list[Scored], int]:
        """Runs of single sets that hold those from offset to end, and how many newer ones were passed over."""
        if len(keys) == 1:
            return await self._read_ranges(keys, offset, end - 1), offset
        if offset <= NEAR:
            return await self._read_ranges(keys, 0, end - 1), 0
        at, passed = await self._time_before(keys, offset)

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for key in keys:
                pipe.zrevrangebyscore(key, at, "-inf", start=0, num=end - passed, withscores=True)
            found: list[Any] = await pipe.execute()
            return found

        return _scored(await self.server.retry(read)), passed

    async def _read_ranges(self, keys: Sequence[str], first: int, last: int) -> list[Scored]:
        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for key in keys:
                pipe.zrange(key, first, last, desc=True, withscores=True)
            found: list[Any] = await pipe.execute()
            return found

        return _scored(await self.server.retry(read))

    async def _time_before(self, keys: Sequence[str], offset: int) -> tuple[int, int]:
        """A time (µs) and the number of runs after it: at most `offset`, and near it unless many share one time."""
        ends = await self._read_ranges(keys, 0, 0) + await self._read_ranges(keys, -1, -1)
        low, high, passed = int(min(ends)[0]) - 1, int(max(ends)[0]), 0  # more than offset after low, none after high
        while high - low > 1 and offset - passed > NEAR:
            middle = (low + high) // 2
            newer = await self._newer(keys, middle)
            if newer > offset:
                low = middle
            else:
                high, passed = middle, newer
        return high, passed

    async def _newer(self, keys: Sequence[str], at: int) -> int:
        async def read() -> list[int]:
            pipe = self.client.pipeline(transaction=False)
            for key in keys:
                pipe.zcount(key, f"({at}", "+inf")
            found: list[int] = await pipe.execute()
            return found

        return sum(await self.server.retry(read))

    async def _of_all(self, sources: Sequence[Source], want: int, *, newest: bool) -> list[Scored]:
        """Runs of each intersection, from the newest or the oldest on."""
        found: list[Scored] = []
        for first in range(0, len(sources), ABREAST):
            group = (self._of_one(source, want, newest=newest) for source in sources[first : first + ABREAST])
            for members in await asyncio.gather(*group):
                found += members
        return found

    async def _of_one(self, source: Source, want: int, *, newest: bool) -> list[Scored]:
        want = min(want, source.total)
        smallest = min(source.sizes)
        likely = want * smallest // source.total  # members to walk, were the matches spread evenly
        if source.total <= FEW < likely:
            read = partial(self.client.zinter, source.keys, aggregate="MIN", withscores=True)
            return _scored([await self.server.retry(read)])
        walked = source.keys[source.sizes.index(smallest)]
        others = [key for key in source.keys if key != walked]
        found: dict[bytes, float] = {}  # a run that comes meanwhile moves others down, so that they are met twice
        chunk, first = min(CHUNK, max(100, likely + likely // 4)), 0
        while len(found) < want:
            # without scores, which the library is slow to read; the other sets have the same
            page = partial(self.client.zrange, walked, first, first + chunk - 1, desc=newest)
            members = await self.server.retry(page)
            if not members:
                break
            found.update(await self._standing_in(others, members))
            first, chunk = first + chunk, CHUNK
        return [(at, run_id) for run_id, at in found.items()]

    async def _standing_in(self, keys: Sequence[str], members: Sequence[bytes]) -> dict[bytes, float]:
        """Those members that stand in all of the sets, with their scores."""

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for key in keys:
                pipe.zmscore(key, members)
            found: list[Any] = await pipe.execute()
            return found

        columns = await self.server.retry(read)
        return {
            run_id: scores[0]
            for run_id, scores in zip(members, zip(*columns, strict=True), strict=True)
            if None not in scores
        }


def check_filters(statuses: Iterable[str], tags: Iterable[str]) -> tuple[list[str], list[str]]:
    """Both as lists; refuses statuses that no run can have, and tags that are none.

    Raises:
        InvalidArgument: names the first.
    """
    allowed = [*STATUSES.values(), RESERVED]
    wanted = check_list("status", statuses, "words")
    for status in wanted:
        if status not in allowed:
            raise InvalidArgument("status", status, f"one of {', '.join(allowed)}")
    return wanted, check_words("tags", tags)


def _ids(page: Sequence[Scored]) -> list[str]:
    return [run_id.decode() for _, run_id in page]


def _scored(ranges: Sequence[Sequence[Any]]) -> list[Scored]:
    return [(at, run_id) for members in ranges for run_id, at in members]
