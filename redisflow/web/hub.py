"""The lossless tail: one reader a process hands the events of watched runs on to everybody who watches.

Each run that somebody watches is a feed with a cursor, the stream id up to which it has read. A round reads all feeds in one
pipeline, one command each, so 200 viewers of a run cost Redis what one does, and nothing where nobody looks. A viewer says which
stream id it has seen last: what lies between that and the feed's cursor comes from the feed's memory or, further back, once from
the stream; then it gets what the feed gets. It listens before it catches up and passes by what it has, so there is neither a gap
nor a double.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.entries import order
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.glance import last_stream_id, read_after, rest_of_entry
from redisflow.codec import decode_event
from redisflow.model.errors import RedisflowError, RunNotFound

log = logging.getLogger("redisflow.web")
PAGE = 500
REMEMBERED = 1_000
"""Events that a feed keeps for viewers who come back."""
MOST_WAITING = 5_000
"""Events a viewer may be behind before it is dropped; it comes back with its last id."""
LOOK = 20
"""Rounds between two looks at whether a run is still there."""

Item = tuple[str, dict[str, Any]]
"""Stream id and wire form of an event."""


class Feed:
    """One run: what was read last, what is remembered, and who listens."""

    def __init__(self, run_id: str, slug: str, version_of: Callable[[int], str], cursor: str) -> None:
        self.run_id = run_id
        self.cursor = cursor
        self.since = cursor
        self.listeners: set[asyncio.Queue[Item | None]] = set()
        self.changed = asyncio.Event()
        self._slug = slug
        self._version_of = version_of
        self._recent: deque[Item] = deque(maxlen=REMEMBERED)

    def decode(self, stream_id: str, entry: Any) -> Item:
        """An entry as viewers get it."""
        return stream_id, decode_event(stream_id, entry, self._slug, self.run_id, self._version_of)

    def publish(self, entries: list[tuple[str, Any]]) -> None:
        """Hand on what was read after the cursor."""
        for stream_id, entry in entries:
            item = self.decode(stream_id, entry)
            if len(self._recent) == REMEMBERED:
                self.since = self._recent[0][0]
            self._recent.append(item)
            self.cursor = stream_id
            for queue in self.listeners:
                _offer(queue, item)
        if entries:
            self.changed.set()
            self.changed = asyncio.Event()

    def remembered(self, after: str) -> list[Item] | None:
        """Events after a stream id; None where the memory does not go back so far."""
        if order(after) < order(self.since):
            return None
        return [item for item in self._recent if order(item[0]) > order(after)]

    def end(self) -> None:
        """Tell every viewer that there is nothing more to come."""
        self.changed.set()
        for queue in self.listeners:
            _offer(queue, None)


def _offer(queue: asyncio.Queue[Item | None], item: Item | None) -> None:
    try:
        queue.put_nowait(item)
    except asyncio.QueueFull:  # too slow: it comes back with its last id
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(None)


class Hub:
    """All feeds of a process, and their reader.

    Args:
        backend: opened.
        poll: seconds between two rounds.
    """

    def __init__(self, backend: RedisBackend, poll: float) -> None:
        self._backend = backend
        self._poll = poll
        self._feeds: dict[str, Feed] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._wanted = asyncio.Event()
        self._rounds = 0
        self.closed = False

    async def run(self) -> None:
        """Read for as long as the process lives; cancelled at its end."""
        while True:
            await self._wanted.wait()
            try:
                await self.round()
            except RedisflowError as error:  # it may come back
                log.debug("a round of the live tails failed: %s", error)
            except Exception:  # without rounds every viewer would wait for ever
                log.exception("a round of the live tails failed")
            await asyncio.sleep(self._poll)

    async def round(self) -> None:
        """Read every feed once."""
        self._rounds += 1
        feeds = dict(self._feeds)
        found = await read_after(self._backend, {run: feed.cursor for run, feed in feeds.items()}, PAGE)
        for run_id, entries in found.items():
            feeds[run_id].publish(entries)
        if self._rounds % LOOK == 0:
            for run_id, feed in feeds.items():
                if await self._backend.run_context(run_id) is None:
                    feed.end()

    def close(self) -> None:
        """End every tail, so that a server can stop."""
        self.closed = True
        for feed in self._feeds.values():
            feed.end()

    @contextlib.asynccontextmanager
    async def feed(self, run_id: str) -> AsyncIterator[tuple[Feed, asyncio.Queue[Item | None]]]:
        """The feed of a run with a place to listen; the feed goes when the last listener does.

        Raises:
            RunNotFound: there is no such run.
        """
        queue: asyncio.Queue[Item | None] = asyncio.Queue(MOST_WAITING)
        feed = await self._open(k.check_run_id(run_id), queue)
        try:
            yield feed, queue
        finally:
            feed.listeners.discard(queue)
            if not feed.listeners and self._feeds.get(run_id) is feed:
                del self._feeds[run_id]
            if not self._feeds:
                self._wanted.clear()

    async def _open(self, run_id: str, queue: asyncio.Queue[Item | None]) -> Feed:
        lock = self._opening.setdefault(run_id, asyncio.Lock())
        try:
            async with lock:
                feed = self._feeds.get(run_id)
                if feed is None:
                    context = await self._backend.run_context(run_id)
                    if context is None:
                        raise RunNotFound(run_id)
                    feed = Feed(run_id, *context, await last_stream_id(self._backend, run_id))
                    self._feeds[run_id] = feed
                feed.listeners.add(queue)  # at once, so that nobody takes the feed away
                self._wanted.set()
                return feed
        finally:
            if self._opening.get(run_id) is lock and not lock.locked():
                del self._opening[run_id]

    async def tail(self, run_id: str, after: str = "0-0") -> AsyncIterator[Item]:
        """Events of a run after a stream id, live, each once and in order; ends when the run is deleted or the hub closes.

        Raises:
            RunNotFound: there is no such run.
        """
        async with self.feed(run_id) as (feed, queue):
            last, upto = after, feed.cursor
            remembered = feed.remembered(after)
            if remembered is not None:
                for item in remembered:
                    last = item[0]
                    yield item
            else:
                async for item in self._older(feed, after, upto):
                    last = item[0]
                    yield item
            while not self.closed:
                found = await queue.get()
                if found is None:
                    return
                if order(found[0]) > order(last):
                    last = found[0]
                    yield found

    async def _older(self, feed: Feed, after: str, upto: str) -> AsyncIterator[Item]:
        """Events from the stream itself, up to where the feed was."""
        page = await rest_of_entry(self._backend, feed.run_id, after)
        while order(after) < order(upto):
            for stream_id, entry in page:
                if order(stream_id) > order(upto):
                    return
                after = stream_id
                yield feed.decode(stream_id, entry)
            page = (await read_after(self._backend, {feed.run_id: after}, PAGE))[feed.run_id]
            if not page:
                return
