"""`redisflow verify`: holds every history against its rules, and every key against the streams that it was derived from.

Safe under live traffic: keys follow from the stream, so where the last event is the same before and after the reads, the keys must
fit; where it moved, the run is read again. Bounded: runs are read some at a time, sets and keys by pages. Nothing is written,
except by `repair`, whose script refuses where the run moved since it was read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.verify.expected import (
    SOMEWHERE,
    Place,
    Snapshot,
    check_hash,
    check_progress,
    places,
)
from redisflow.backend.redis.verify.members import Members
from redisflow.backend.replies import Reply
from redisflow.codec import decode_payload, unpack
from redisflow.model.derived import Entry, StepPlan, fold_run
from redisflow.model.invariants import RULES, Violation, check_history, is_told

__all__ = ["Verifier", "Violation"]
TRIES = 20
AT_ONCE = 16
"""Runs read at a time."""
_NAMESPACE_KEYS = ("layout", "workflows", "saved")


class Verifier:
    """Checks a namespace.

    Args:
        backend: opened.

    Attributes:
        runs_checked: runs whose keys and history were held against their events.
        runs_told: those among them whose history a caller saved, imported or cut, so that only the keys could be checked.
        runs_moving: runs that moved at every look.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._plans: dict[tuple[int, int], tuple[str, dict[str, StepPlan]]] = {}
        self.runs_checked = self.runs_told = self.runs_moving = 0

    async def check(self, run_ids: Iterable[str] | None = None) -> AsyncIterator[Violation]:
        """Violations of the given runs, or of all runs, sets and keys."""
        if run_ids is not None:
            for run_id in run_ids:
                for violation in await self.check_run(k.check_run_id(run_id)):
                    yield violation
            return
        for partition in range(len(self._backend.partitions)):
            async for violation in self._check_runs(partition):
                yield violation
            async for violation in Members(self._backend, partition, self._plan).check():
                yield violation
        async for violation in self._check_namespace():
            yield violation

    async def _check_runs(self, partition: int) -> AsyncIterator[Violation]:
        backend, prefix = self._backend, self._backend.partitions[partition].prefix + "run:"
        seen: set[str] = set()
        page: list[str] = []

        async def check_page() -> list[Violation]:
            found = await asyncio.gather(*(self.check_run(run_id) for run_id in page))
            page.clear()
            return [violation for violations in found for violation in violations]

        async for key in backend.scan_keys(prefix, kind="hash"):
            run_id = key[len(prefix) :]
            if run_id in seen or backend.partition(run_id) != partition:
                continue  # what is misplaced is found among the keys
            seen.add(run_id)
            page.append(run_id)
            if len(page) == AT_ONCE:
                for violation in await check_page():
                    yield violation
        for violation in await check_page():
            yield violation

    async def _check_namespace(self) -> AsyncIterator[Violation]:
        backend = self._backend
        prefix = f"{{{backend.namespace}}}:"
        async for key in backend.scan_keys(prefix):
            name = key[len(prefix) :]
            if name in _NAMESPACE_KEYS or name.startswith("versions:"):
                continue
            if await backend.server.retry(partial(backend.client.ttl, key)) == -1:
                yield Violation("", "key", f"{key} belongs to nothing, and has no TTL")

    async def check_run(self, run_id: str) -> list[Violation]:
        """Violations of one run; it is read again for as long as it moves."""
        for _ in range(TRIES):
            snapshot = await self._read(run_id)
            if snapshot is None:
                return []
            moved, found = await self._check_places(snapshot)
            if not moved:
                self.runs_checked += 1
                return check_hash(snapshot) + found + self._check_history(snapshot)
        self.runs_moving += 1
        return []

    def _check_history(self, snapshot: Snapshot) -> list[Violation]:
        if not snapshot.plan or not snapshot.whole or is_told(snapshot.entries):
            self.runs_told += 1
            return []
        return check_history(snapshot.run_id, snapshot.entries, snapshot.plan)

    async def repair(self, violations: Iterable[Violation]) -> dict[str, bool]:
        """Make the derived keys of the runs concerned anew from their streams, and take away what stands where nothing should.

        A broken rule of a history is no matter of keys and is left out, as are keys that are merely unknown: nothing changes what
        was recorded, and nothing is deleted that may be somebody's.

        Returns:
            For each run ("" for what belongs to none) whether it was mended; False where it moved meanwhile.
        """
        groups: dict[tuple[str, int], list[Violation]] = {}
        for violation in violations:
            if violation.rule in RULES or not (violation.run_id or violation.place):
                continue
            groups.setdefault((violation.run_id, self._partition_of(violation)), []).append(violation)
        mended: dict[str, bool] = {}
        for (run_id, partition), found in groups.items():
            done = await self._repair_run(run_id, partition, found)
            mended[run_id] = mended.get(run_id, True) and done
        return mended

    def _partition_of(self, violation: Violation) -> int:
        if violation.place is None:
            return self._backend.partition(violation.run_id)
        prefixes = [violation.place[0].startswith(keys.prefix) for keys in self._backend.partitions]
        return prefixes.index(True)

    async def _repair_run(self, run_id: str, partition: int, violations: list[Violation]) -> bool:
        backend, keys = self._backend, self._backend.partitions[partition]
        stream = keys.events(run_id)
        first = await backend.server.retry(lambda: backend.client.xrange(stream, count=1))
        last = await backend.server.retry(lambda: backend.client.xrevrange(stream, count=1))
        if first and any(violation.rule == "idempotency" for violation in violations):
            fields = unpack(first[0][1][b"data"])
            if fields.get("ix"):  # the record lies in another partition
                home = backend.partition(k.route_of_key(fields["ih"]))
                await backend.call("reserve", home, key_hash=fields["ih"], run_id=run_id)
        strays = [
            part
            for key, member in dict.fromkeys(v.place for v in violations if v.place)
            for part in (key[len(keys.prefix) :], member)
        ]
        reply = await backend.call("repair", partition, strays, run_id=run_id, last_id=last[0][0] if last else "")
        return bool(reply[0] == Reply.OK)

    async def _read(self, run_id: str) -> Snapshot | None:
        backend, keys = self._backend, self._backend.keys_of(run_id)
        entries = [_entry(stream_id, fields) async for stream_id, fields in backend.read_stream(run_id)]
        if not entries:
            return None

        async def read() -> list[Any]:
            pipe = backend.client.pipeline(transaction=False)
            pipe.hgetall(keys.run(run_id))
            pipe.xinfo_stream(keys.events(run_id))
            found: list[Any] = await pipe.execute(raise_on_error=False)
            return found

        raw, info = await backend.server.retry(read)
        if isinstance(raw, Exception) or isinstance(info, Exception) or not raw:
            return None  # deleted meanwhile; what is left of half a deletion is found among the keys
        submission = next((entry for entry in entries if entry.type == "RunSubmitted"), None)
        number = int(submission.fields.get("pl", 0)) if submission else 0
        slug, plan = await self._plan(backend.partition(run_id), number)
        fold = fold_run(entries)
        return Snapshot(
            run_id, entries, fold, {f.decode(): v for f, v in raw.items()}, number, plan, slug or fold.slug,
            info["entries-added"] == info["length"],
        )  # fmt: skip

    async def _plan(self, partition: int, number: int) -> tuple[str, dict[str, StepPlan]]:
        if not number:
            return "", {}
        if (partition, number) not in self._plans:
            backend = self._backend
            key = backend.partitions[partition].plan(number)
            text = await backend.server.retry(lambda: backend.client.hget(key, "json"))
            if text is None:
                return "", {}
            plan = decode_payload(text)
            steps = {
                step["id"]: StepPlan(
                    {edge["step"]: edge["kind"][0] for edge in step["dependencies"]}, step["queue"],
                    sum(tier["attempts"] for tier in step["retry"]["tiers"]), step["retry"]["crashes"],
                )
                for step in plan["steps"]
            }  # fmt: skip
            self._plans[(partition, number)] = (plan["slug"], steps)
        return self._plans[(partition, number)]

    async def _check_places(self, snapshot: Snapshot) -> tuple[bool, list[Violation]]:
        """Whether the run moved, and what is wrong with its places in sorted sets."""
        backend, run_id, fold = self._backend, snapshot.run_id, snapshot.fold
        keys = backend.keys_of(run_id)
        expected = list(places(keys, snapshot))

        async def read() -> list[Any]:
            pipe = backend.client.pipeline(transaction=not backend.server.clustered)
            pipe.xrevrange(keys.events(run_id), count=1)
            for place in expected:
                pipe.zscore(place.key, place.member)
            pipe.zscore(keys.strays, run_id)
            pipe.zscore(keys.expand, run_id)
            if fold.key_hash:
                pipe.get(backend.keys_of(k.route_of_key(fold.key_hash)).idempotency(fold.key_hash))
            pipe.xrevrange(keys.events(run_id), count=1)
            found: list[Any] = await pipe.execute()
            return found

        replies = await backend.server.retry(read)
        tail = replies[-1]
        if not tail or tail[0][0].decode() != snapshot.last_id or replies[0] != tail:
            return True, []
        stray, expanding = replies[len(expected) + 1], replies[len(expected) + 2] is not None
        found = [
            Violation(run_id, place.rule, f"{place.member} stands in {place.key} with {score}, expected {place.score}")
            for place, score in zip(expected, replies[1 : len(expected) + 1], strict=True)
            if not _fits(place, score, expanding)
        ]
        if not fold.live and fold.latest > (fold.ended or 0) and (stray or 0) < fold.latest:
            message = f"{run_id} has an event of {fold.latest}, after its end, but stands in {keys.strays} with {stray}"
            found.append(Violation(run_id, "strays", message))
        owner_text = f">{run_id}" if fold.key_elsewhere else run_id
        if fold.key_hash and replies[len(expected) + 3] != owner_text.encode():
            owner = replies[len(expected) + 3]
            found.append(Violation(run_id, "idempotency", f"the key's record names {owner!r}, expected this run"))
        return False, found + check_progress(snapshot, expanding)


def _fits(place: Place, score: float | None, expanding: bool) -> bool:
    if place.score == SOMEWHERE:
        return score is not None
    lingers = place.score is None and expanding and place.rule in ("queue", "running")
    return score == place.score or lingers


def _entry(stream_id: bytes, fields: dict[bytes, bytes]) -> Entry:
    return Entry(
        stream_id.decode(), fields[b"type"].decode(), fields[b"step"].decode(), unpack(fields[b"data"]),
        fields[b"payload"].decode(),
    )  # fmt: skip
