"""Figures of the last hours from the counters of each minute: as fast over a million runs as over one.

`lua/lib/rollup.lua` counts them up in the call that writes the events. They are a cache: kept for six hours, blind to events that
were saved or imported, and exact but for the percentiles, whose error has a bound (`redisflow/model/histogram.py`). What reaches
further back is folded from the streams (`analytics.py`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from redisflow.backend.redis.depth import QueueDepths
from redisflow.model.errors import InvalidArgument
from redisflow.model.histogram import Histogram

MINUTE = 60_000_000
MOST_MINUTES = 360


@dataclass
class Rollups:
    """What happened in some minutes.

    Attributes:
        start_us: beginning of the first minute.
        minutes: how many, the running one included.
        events: by workflow and type, how many were written.
        by_minute: events by type in each minute, the oldest first.
        waits: of attempts, from `availableAt` to their start.
        steps: durations of attempts that completed or failed.
        runs: durations of runs, from their submission to their end.
    """

    start_us: int
    minutes: int
    events: dict[str, Counter[str]] = field(default_factory=dict)
    by_minute: list[Counter[str]] = field(default_factory=list)
    waits: Histogram = field(default_factory=Histogram)
    steps: Histogram = field(default_factory=Histogram)
    runs: Histogram = field(default_factory=Histogram)

    def total(self, kind: str, workflow_slug: str | None = None) -> int:
        """Events of a type, of one workflow or of all."""
        if workflow_slug is not None:
            return self.events.get(workflow_slug, Counter())[kind]
        return sum(types[kind] for types in self.events.values())

    @property
    def spreads(self) -> dict[str, tuple[str, Histogram]]:
        """The histograms by their JSON names, each with its name for a person."""
        return {
            "waitUs": ("wait for a worker", self.waits),
            "stepUs": ("step", self.steps),
            "runUs": ("run", self.runs),
        }

    def add(self, minute: int, name: str, count: int) -> None:
        """Take up a field of a minute's hash."""
        histograms = {"w": self.waits, "s": self.steps, "r": self.runs}
        slug, _, together = name.removeprefix("n:").rpartition(":")
        for counted in together.split("+"):
            if histogram := histograms.get(counted[0]):  # types of events begin with a capital
                histogram.buckets[int(counted[1:])] += count
            else:
                self.events.setdefault(slug, Counter())[counted] += count
                self.by_minute[minute][counted] += count

    def merge(self, other: Rollups, sign: int = 1) -> None:
        """Add what happened in other minutes, or take it away with -1; `by_minute` stays as it is."""
        for slug, types in other.events.items():
            mine = self.events.setdefault(slug, Counter())
            for kind, count in types.items():
                mine[kind] += sign * count
        pairs = ((self.waits, other.waits), (self.steps, other.steps), (self.runs, other.runs))
        for histogram, added in pairs:
            for bucket, count in added.buckets.items():
                histogram.buckets[bucket] += sign * count


class RollupQueries(QueueDepths):
    """What is read from the rollups."""

    async def get_rollups(self, minutes: int = 60) -> Rollups:
        """Events, waits and durations of the last minutes, in one round trip a partition.

        Args:
            minutes: 1 to 360, the running one included.

        Raises:
            InvalidArgument: another number.
        """
        if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= MOST_MINUTES:
            raise InvalidArgument("minutes", minutes, f"an integer from 1 to {MOST_MINUTES}")
        first = await self.now() // MINUTE - minutes + 1
        found = Rollups(first * MINUTE, minutes, by_minute=[Counter() for _ in range(minutes)])
        for keys in self.opened:
            hashes = await self.server.retry(
                partial(self._read_hashes, [keys.stats(first + k) for k in range(minutes)])
            )
            for minute, fields in enumerate(hashes):
                for name, count in fields.items():
                    found.add(minute, name.decode(), int(count))
        return found

    async def get_rollups_since(self, minute: int | None) -> list[Rollups]:
        """One a minute, from a minute (since the epoch; at most 360 ago) to the running one; None: only the running one."""
        last = await self.now() // MINUTE
        first = last if minute is None else min(last, max(minute, last - MOST_MINUTES + 1))
        found = [Rollups(at * MINUTE, 1, by_minute=[Counter()]) for at in range(first, last + 1)]
        for keys in self.opened:
            names = [keys.stats(at) for at in range(first, last + 1)]
            for rollups, fields in zip(found, await self.server.retry(partial(self._read_hashes, names)), strict=True):
                for name, count in fields.items():
                    rollups.add(0, name.decode(), int(count))
        return found

    async def _read_hashes(self, names: list[str]) -> list[dict[bytes, bytes]]:
        pipe = self.client.pipeline(transaction=False)
        for name in names:
            pipe.hgetall(name)
        found: list[dict[bytes, bytes]] = await pipe.execute()
        return found
