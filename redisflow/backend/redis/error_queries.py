"""Failures of steps: by reason and message, in groups of equal fingerprints, and one group in detail.

They go by `failures`, the index of every StepFailed by its time: what is read is just the failures of the
window, however many runs there are. Partitions are merged by time, so that what is seen first is what
happened first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from heapq import heapify, heappop, heapreplace
from typing import Any, TypeVar

from typing_extensions import Unpack

from redisflow.backend.checks import check_integer
from redisflow.backend.entries import entry_of
from redisflow.backend.redis.walk import Walk, WindowOptions, decode_counted
from redisflow.model.analytics import (
    ErrorAnalysis,
    ErrorAnalysisCounter,
    ErrorDetail,
    ErrorDetailCounter,
    ErrorsList,
    ErrorsListCounter,
    Window,
    counted_names,
)
from redisflow.model.errors import InvalidArgument
from redisflow.model.fingerprints import Grouping

FAILURES = 200
"""Failures read in one round trip."""
ErrorCounter = TypeVar("ErrorCounter", ErrorAnalysisCounter, ErrorsListCounter, ErrorDetailCounter)
Place = tuple[float, bytes, int]
"""A failure in the index: its time, `<run>|<stream id>`, and its partition."""


class ErrorQueries(Walk):
    """What failed, and how often."""

    async def get_error_analysis(self, **options: Unpack[WindowOptions]) -> ErrorAnalysis:
        """Failures by reason and by message, terminal or not; options as `window` takes them."""
        window = await self.window(**options)
        counter = await self.fold_failures(ErrorAnalysisCounter(), window)
        return counter.result(window.workflow_slug, window.step_id)

    async def get_errors_list(
        self, *, start_us: int | None = None, end_us: int | None = None, workflow_slug: str | None = None,
        grouping_strategy: Grouping = "exact", limit: int = 50, offset: int = 0,
    ) -> ErrorsList:  # fmt: skip
        """A page of failures in groups of equal fingerprints, most failures first.

        Args:
            start_us: first time that counts (µs since the epoch); None: 24 hours ago.
            end_us: last time that counts; None: now.
            workflow_slug: only this workflow.
            grouping_strategy: `exact`, `normalized` or `portable` frames.
            limit: groups on the page.
            offset: groups before it.

        Raises:
            InvalidArgument: an argument is out of range; nothing was read.
        """
        counter = ErrorsListCounter(grouping_strategy)
        check_integer("limit", limit)
        check_integer("offset", offset)
        window = await self.window(start_us, end_us, workflow_slug)
        return (await self.fold_failures(counter, window)).result(limit, offset)

    async def get_error_detail(
        self, fingerprint: str, grouping_strategy: Grouping = "exact", *, start_us: int | None = None,
        end_us: int | None = None, limit: int = 100, offset: int = 0,
    ) -> ErrorDetail:  # fmt: skip
        """The failures of one fingerprint with a page of them, newest first; zeros where there is none.

        Args:
            fingerprint: as `get_errors_list` gives it.
            grouping_strategy: the one it was given under.
            start_us: first time that counts (µs since the epoch); None: 24 hours ago.
            end_us: last time that counts; None: now.
            limit: occurrences on the page.
            offset: occurrences before it.

        Raises:
            InvalidArgument: the fingerprint has not three parts, or an argument is out of range.
        """
        if not isinstance(fingerprint, str):
            raise InvalidArgument("fingerprint", fingerprint, "three hashes, name:message:stack")
        counter = ErrorDetailCounter(fingerprint, grouping_strategy)
        check_integer("limit", limit)
        check_integer("offset", offset)
        window = await self.window(start_us, end_us)
        return (await self.fold_failures(counter, window)).result(limit, offset)

    async def fold_failures(self, counter: ErrorCounter, window: Window) -> ErrorCounter:
        """Count the failures of a window in the order of time."""
        places: list[Place] = []
        async for place in self._places(window):
            places.append(place)
            if len(places) == FAILURES:
                await self._count(counter, places, window)
                places = []
        if places:
            await self._count(counter, places, window)
        return counter

    async def _places(self, window: Window) -> AsyncIterator[Place]:
        """The index of all partitions, merged by time."""
        heads: list[tuple[Place, AsyncIterator[Place]]] = []
        for partition in range(len(self.opened)):
            places = self._places_of(partition, window)
            if (first := await anext(places, None)) is not None:
                heads.append((first, places))
        heapify(heads)  # no two places are equal, so the iterators are never compared
        while heads:
            place, places = heads[0]
            yield place
            following = await anext(places, None)
            if following is None:
                heappop(heads)
            else:
                heapreplace(heads, (following, places))

    async def _places_of(self, partition: int, window: Window) -> AsyncIterator[Place]:
        key = self.partitions[partition].failures
        async for page in self.scored_pages(key, window.start_us, window.end_us):
            for member, at in page:
                if window.run_ids is None or member.partition(b"|")[0].decode() in window.run_ids:
                    yield at, member, partition

    async def _count(self, counter: ErrorCounter, places: list[Place], window: Window) -> None:
        slugs: dict[str, str] = {}
        for partition in {partition for _, _, partition in places}:
            runs = {_parts(member)[0] for _, member, here in places if here == partition}
            heads = await self.heads_of(partition, runs)
            slugs.update((run, head.slug) for run, head in heads.items() if window.workflow_slug in (None, head.slug))
        names = frozenset(name.encode() for name in counted_names(counter))
        wanted = [place for place in places if _parts(place[1])[0] in slugs]
        for run_id, entries in await self._entries(wanted):
            for event in decode_counted(entries, slugs[run_id], run_id, names, window):
                counter.add(event)

    async def _entries(self, places: list[Place]) -> list[tuple[str, Any]]:
        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for _, member, partition in places:
                run_id, stream_id = _parts(member)
                pipe.xrevrange(self.partitions[partition].events(run_id), **entry_of(stream_id))
            found: list[Any] = await pipe.execute()
            return found

        found = await self.server.retry(read) if places else []
        members = [_parts(member) for _, member, _ in places]
        return [
            (run_id, [event for event in events if event[0].decode() == stream_id])
            for (run_id, stream_id), events in zip(members, found, strict=True)
        ]


def _parts(member: bytes) -> tuple[str, str]:
    """Run id and stream id of a member of the index."""
    run_id, _, stream_id = member.decode().partition("|")
    return run_id, stream_id
