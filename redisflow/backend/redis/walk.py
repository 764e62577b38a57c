"""Events of many runs, for figures: which runs can have events in a window, and their streams page by page.

A window is by the time of the event. The entries of a run that the engine wrote alone have the time of
their stream id, but those with a time of their own (saved, copied, imported) lie anywhere in their stream,
and nothing in the run's hash tells whether there are any. So a stream is read whole, and the time of each
entry decides. What is left out are whole runs: those that ended before the window began, unless they are
among the strays, which have saved events of a later time than their end.

What is held at a time is a page of runs: the first entries of each stream, without their payloads, and of a
longer stream the events that count. Only the ids of strays and live runs are kept over the walk, since
one of these may stand, or come to stand while it lasts, among the ended too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypedDict, TypeVar

from typing_extensions import Unpack

from redisflow.backend import keys as k
from redisflow.backend.checks import check_list, check_time
from redisflow.backend.redis.header import parse_header
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.redis.upkeep import Upkeep
from redisflow.codec import decode_event, entry_id, pack
from redisflow.model.analytics import Counter, Window, counted_names
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import AnyEvent, parse_event

DAY = 86_400_000_000
RUNS = 500
"""Runs looked at in one round trip."""
STREAMS = 50
"""Streams read in one round trip: enough to hide its time, few enough for large payloads."""
ENTRIES = 200
"""Entries of each stream in it; a longer stream is read on alone."""

OWN_TIME = pack({"ts": 0})[1:-1]
"""How the name of a given time stands in an envelope: where it does not, the entry has the time of its id."""
ENDED = ("completed", "failed", "cancelled")
C = TypeVar("C", bound=Counter)
Entry = tuple[bytes, dict[bytes, bytes]]


class Head(NamedTuple):
    """What the header of a run says that matters here."""

    slug: str
    live: bool


class WindowOptions(TypedDict, total=False):
    """Which events a figure counts: `Window`, save that times may be left out."""

    start_us: int | None
    end_us: int | None
    workflow_slug: str | None
    step_id: str | None
    run_ids: Collection[str] | None


class Walk(Upkeep):
    """What analytics read with; the figures stand on it."""

    @property
    def opened(self) -> list[k.Keys]:
        """The partitions; raises `ServerUnavailable` where there are none, instead of figures of nothing."""
        return self.partitions if self.client else []

    async def window(
        self, start_us: int | None = None, end_us: int | None = None, workflow_slug: str | None = None,
        step_id: str | None = None, run_ids: Collection[str] | None = None,
    ) -> Window:  # fmt: skip
        """The window that options stand for.

        Args:
            start_us: first time that counts (µs since the epoch); None: 24 hours ago.
            end_us: last time that counts; None: now, both by the server's clock.
            workflow_slug: only this workflow.
            step_id: only events of this step.
            run_ids: only these runs.

        Raises:
            InvalidArgument: names the argument and what is allowed; nothing of the runs was read.
        """
        check_time("start_us", start_us)
        check_time("end_us", end_us)
        if workflow_slug is not None:
            k.check_slug(workflow_slug)
        if step_id is not None:
            k.check_step_id(step_id)
        chosen = None
        if run_ids is not None:
            chosen = frozenset(
                k.check_run_id(run_id, "run_ids") for run_id in check_list("run_ids", run_ids, "run ids")
            )
        if start_us is not None and end_us is not None:
            return _window(start_us, end_us, workflow_slug, step_id, chosen)
        now = await self.now()
        start = now - DAY if start_us is None else start_us
        return _window(start, now if end_us is None else end_us, workflow_slug, step_id, chosen)

    async def fold(self, counter: C, **options: Unpack[WindowOptions]) -> tuple[C, Window]:
        """Count the events of a window, run by run and each run's by time; answers with the window too."""
        window = await self.window(**options)
        return await self.fold_window(counter, window), window

    async def fold_window(self, counter: C, window: Window) -> C:
        """Count the events of a window."""
        names = frozenset(name.encode() for name in counted_names(counter))
        for partition, keys in enumerate(self.opened):
            async for page in self._runs_of(partition, window):
                heads = await self.heads_of(partition, page)
                runs = [(run, head.slug) for run, head in heads.items() if window.workflow_slug in (None, head.slug)]
                for first in range(0, len(runs), STREAMS):
                    async for events in self._events_of(keys, runs[first : first + STREAMS], names, window):
                        for event in events:
                            counter.add(event)
        return counter

    async def _events_of(
        self, keys: k.Keys, runs: Sequence[tuple[str, str]], names: Collection[bytes], window: Window
    ) -> AsyncIterator[list[AnyEvent]]:
        """The events that count of each run, by time, then id."""
        streams = await self._first_entries(keys, [run_id for run_id, _ in runs])
        for (run_id, slug), entries in zip(runs, streams, strict=True):
            events = decode_counted(entries, slug, run_id, names, window)
            if len(entries) >= ENTRIES:
                async for page in self._later_entries(keys, run_id, entries[-1][0]):
                    events += decode_counted(page, slug, run_id, names, window)
            # the wire id of an event grows with its place in the stream
            events.sort(key=lambda event: event.timestamp_us)
            yield events

    async def heads_of(self, partition: int, run_ids: Iterable[str]) -> dict[str, Head]:
        """Workflow and state of each run of a partition that is there."""
        ids, keys = list(run_ids), self.partitions[partition]

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for run_id in ids:
                pipe.hmget(keys.run(run_id), "h", "w")
            found: list[Any] = await pipe.execute()
            return found

        found: dict[str, Head] = {}
        for run_id, (header, slug) in zip(ids, await self.server.retry(read) if ids else [], strict=True):
            if header is not None:
                head = parse_header(header)
                info = await self.plan_info(partition, head.plan) if head.plan else None
                name = info.slug if info else (slug or b"-").decode()
                found[run_id] = Head(name, head.status_word in LIVE)
        return found

    async def scored_pages(self, key: str, low: int | str, high: int | str) -> AsyncIterator[list[tuple[bytes, float]]]:
        """Members of a sorted set by score; those that leave it meanwhile move no other out of sight."""
        skip = 0
        while True:
            call = partial(self.client.zrangebyscore, key, low, high, start=skip, num=RUNS, withscores=True)
            page = await self.server.retry(call)
            if page:
                yield page
            if len(page) < RUNS:
                return
            last = int(page[-1][1])
            skip = (skip if last == low else 0) + sum(score == last for _, score in page)
            low = last

    async def _runs_of(self, partition: int, window: Window) -> AsyncIterator[list[str]]:
        """Ids of the runs of a partition that may have events in a window, in pages."""
        if window.run_ids is not None:
            chosen = sorted(run_id for run_id in window.run_ids if self.partition(run_id) == partition)
            for first in range(0, len(chosen), RUNS):
                yield chosen[first : first + RUNS]
            return
        keys = self.partitions[partition]
        met: set[bytes] = set()
        slugs = [window.workflow_slug] if window.workflow_slug else await self.slugs_with_runs()
        sets: list[tuple[str, int | str]] = [(keys.strays, window.start_us)]
        sets += [(keys.index(slug, status), "-inf") for slug in slugs for status in LIVE]
        for key, low in sets:
            async for page in self.scored_pages(key, low, "+inf"):
                fresh = [run_id.decode() for run_id, _ in page if run_id not in met]
                met.update(run_id for run_id, _ in page)
                yield fresh
        if window.workflow_slug and not await self._has_ended(keys, window.workflow_slug):
            return
        async for page in self.scored_pages(keys.ended, window.start_us, "+inf"):
            yield [run_id.decode() for run_id, _ in page if run_id not in met]

    async def _has_ended(self, keys: k.Keys, slug: str) -> bool:
        async def read() -> list[int]:
            pipe = self.client.pipeline(transaction=False)
            for status in ENDED:
                pipe.zcard(keys.index(slug, status))
            found: list[int] = await pipe.execute()
            return found

        return any(await self.server.retry(read))

    async def _first_entries(self, keys: k.Keys, run_ids: Sequence[str]) -> list[list[Entry]]:
        async def read() -> list[list[Entry]]:
            pipe = self.client.pipeline(transaction=False)
            for run_id in run_ids:
                pipe.xrange(keys.events(run_id), count=ENTRIES)
            found: list[list[Entry]] = await pipe.execute()
            return found

        return await self.server.retry(read)

    async def _later_entries(self, keys: k.Keys, run_id: str, after: bytes) -> AsyncIterator[list[Entry]]:
        while True:
            low = f"({after.decode()}"
            page = await self.server.retry(partial(self.client.xrange, keys.events(run_id), min=low, count=ENTRIES))
            if page:
                yield page
            if len(page) < ENTRIES:
                return
            after = page[-1][0]


def _window(start: int, end: int, slug: str | None, step: str | None, run_ids: frozenset[str] | None) -> Window:
    if start > end:
        raise InvalidArgument("start_us", start, f"at most end_us={end} (by default 24 hours ago, and now)")
    return Window(start, end, slug, step, run_ids)


def decode_counted(
    entries: Iterable[Entry], slug: str, run_id: str, names: Collection[bytes], window: Window
) -> list[AnyEvent]:
    """The events among a run's entries that have one of the names and lie in the window."""
    found = []
    for stream_id, entry in entries:
        if entry[b"type"] not in names:
            continue
        if OWN_TIME not in entry[b"data"] and not window.spans(entry_id(stream_id.decode())):
            continue
        if entry[b"payload"]:
            entry[b"payload"] = b"null"  # no figure looks into it, and it may be large
        wire = decode_event(stream_id.decode(), entry, slug, run_id, _no_version)
        if window.spans(wire["timestampUs"]):
            event = parse_event(wire)
            if window.holds(event):
                found.append(event)
    return found


def _no_version(_: int) -> str:
    return "unknown"
