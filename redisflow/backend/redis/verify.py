"""`redisflow verify`: folds every stream again and compares with the keys that were derived from it.

Safe under live traffic: keys follow from the stream, so where the last event is the same before and after the reads, the keys must
fit; where it moved, the run is read again. Nothing is written, except by `repair`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import STATUSES, STEP_STATUSES, Header, StepField, parse_header, parse_step
from redisflow.backend.replies import Reply
from redisflow.codec import decode_payload, unpack
from redisflow.model.derived import Entry, RunFold, StepFold, StepPlan, fold_run

TRIES = 20
INLINE = 62
_STEP_LETTER = {word: letter for letter, word in STEP_STATUSES.items()}
_RUN_LETTER = {word: letter for letter, word in STATUSES.items()}
_KINDS = {"completed": "c", "failed": "f", "skipped": "k", "reclaimed": "r", "released": "l", "-": "-"}


@dataclass(frozen=True)
class Violation:
    """One thing that is not as the streams imply.

    Attributes:
        run_id: the run, or "" where a key belongs to none.
        rule: short name of the broken rule.
        message: what is, and what should be.
        event_ids: events that show it.
    """

    run_id: str
    rule: str
    message: str
    event_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Snapshot:
    fold: RunFold
    last_id: str
    hash: dict[str, bytes]
    plan_number: int
    plan: Mapping[str, StepPlan]
    slug: str
    total: int


class Verifier:
    """Checks a namespace.

    Args:
        backend: opened.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._plans: dict[tuple[int, int], tuple[str, dict[str, StepPlan]]] = {}
        self.runs_checked = 0
        self.runs_moving = 0

    async def check(self, run_ids: Iterable[str] | None = None) -> AsyncIterator[Violation]:
        """Violations of the given runs, or of all runs and all sets."""
        if run_ids is not None:
            for run_id in run_ids:
                for violation in await self.check_run(k.check_run_id(run_id)):
                    yield violation
            return
        client = self._backend.client
        for partition, keys in enumerate(self._backend.partitions):
            async for key in client.scan_iter(match=_literal(keys.prefix) + "run:*", count=500, _type="HASH"):
                run_id = key.decode()[len(keys.prefix) + 4 :]
                if self._backend.partition(run_id) != partition:
                    yield Violation(run_id, "misplaced", f"{key.decode()} is not in the run's own partition")
                    continue
                for violation in await self.check_run(run_id):
                    yield violation
            async for violation in self._check_sets(partition):
                yield violation

    async def check_run(self, run_id: str) -> list[Violation]:
        """Violations of one run; it is read again for as long as it moves."""
        found: list[Violation] = []
        for _ in range(TRIES):
            snapshot = await self._read(run_id)
            if snapshot is None:
                return []
            found = _check_hash(run_id, snapshot)
            moved, memberships = await self._check_memberships(run_id, snapshot)
            if not moved:
                self.runs_checked += 1
                return found + memberships
        self.runs_moving += 1
        return []

    async def repair(self, run_id: str) -> bool:
        """Make a run's keys anew from its stream; False where it moved meanwhile or is gone."""
        backend = self._backend
        keys = backend.keys_of(k.check_run_id(run_id))
        last = await backend.server.retry(lambda: backend.client.xrevrange(keys.events(run_id), count=1))
        if not last:
            return False
        reply = await backend.call("repair", backend.partition(run_id), run_id=run_id, last_id=last[0][0])
        return bool(reply[0] == Reply.OK)

    async def _read(self, run_id: str) -> _Snapshot | None:
        backend, keys = self._backend, self._backend.keys_of(run_id)
        entries = [_entry(stream_id, fields) async for stream_id, fields in backend.read_stream(run_id)]
        raw = await backend.server.retry(lambda: backend.client.hgetall(keys.run(run_id)))
        if not entries or not raw:
            return None
        submission = next((entry for entry in entries if entry.type == "RunSubmitted"), None)
        number = int(submission.fields.get("pl", 0)) if submission else 0
        slug, plan = await self._plan(backend.partition(run_id), number)
        fold = fold_run(entries)
        return _Snapshot(
            fold, entries[-1].stream_id, {f.decode(): v for f, v in raw.items()}, number, plan,
            slug or fold.slug, len(plan),
        )  # fmt: skip

    async def _plan(self, partition: int, number: int) -> tuple[str, dict[str, StepPlan]]:
        if not number:
            return "", {}
        if (partition, number) not in self._plans:
            backend = self._backend
            key = backend.partitions[partition].plan(number)
            text = await backend.server.retry(lambda: backend.client.hget(key, "json"))
            plan = decode_payload(text)
            steps = {
                step["id"]: StepPlan({e["step"]: e["kind"][0] for e in step["dependencies"]}, step["queue"])
                for step in plan["steps"]
            }
            self._plans[(partition, number)] = (plan["slug"], steps)
        return self._plans[(partition, number)]

    async def _check_memberships(self, run_id: str, snapshot: _Snapshot) -> tuple[bool, list[Violation]]:
        """Whether the run moved, and what is wrong with its places in sorted sets."""
        backend, keys, fold = self._backend, self._backend.keys_of(run_id), snapshot.fold
        expected: list[tuple[str, str, float | None, str]] = []
        for name in {*fold.steps, *(field[2:] for field in snapshot.hash if field.startswith("s:"))}:
            step = fold.steps.get(name) or StepFold(level=fold.priority)
            queue = snapshot.plan[name].queue if name in snapshot.plan else snapshot.slug
            member = f"{run_id}|{name}"
            place = step.available if fold.live and step.status == "scheduled" else None
            expected.append((keys.scheduled(queue, step.level), member, place, "queue"))
            expected.append((keys.running, member, -1 if fold.live and step.status == "running" else None, "running"))
        for status in STATUSES.values():
            here = fold.created if status == fold.status else None
            expected.append((keys.index(snapshot.slug, status), run_id, here, "index"))
        expected += [(keys.tag(snapshot.slug, tag), run_id, fold.created, "index") for tag in fold.tags]
        expected += [(keys.failures, f"{run_id}|{stream_id}", at, "failures") for stream_id, at in fold.failures]
        expected.append((keys.ended, run_id, None if fold.live else fold.ended, "retention"))
        expected.append((keys.deadlines, f"run:{run_id}", fold.deadline if fold.live else None, "deadlines"))

        async def read() -> list[Any]:
            pipe = backend.client.pipeline(transaction=not backend.server.clustered)
            pipe.xrevrange(keys.events(run_id), count=1)
            for key, member, _, _ in expected:
                pipe.zscore(key, member)
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
        scores = replies[1 : len(expected) + 1]
        stray, expanding = replies[len(expected) + 1], replies[len(expected) + 2] is not None
        found = []
        if not fold.live and fold.latest > (fold.ended or 0) and (stray or 0) < fold.latest:
            message = f"{run_id} has an event of {fold.latest}, after its end, but stands in {keys.strays} with {stray}"
            found.append(Violation(run_id, "strays", message))
        for (key, member, wanted, rule), score in zip(expected, scores, strict=True):
            lingering = wanted is None and expanding and rule in ("queue", "running")
            if (wanted == -1 and score is not None) or score == wanted or lingering:
                continue
            found.append(Violation(run_id, rule, f"{member} stands in {key} with {score}, expected {wanted}"))
        owner_text = f">{run_id}" if fold.key_elsewhere else run_id
        if fold.key_hash and replies[len(expected) + 3] != owner_text.encode():
            owner = replies[len(expected) + 3]
            found.append(Violation(run_id, "idempotency", f"the key's record names {owner!r}, expected this run"))
        found += _check_progress(run_id, snapshot, expanding)
        return False, found

    async def _check_sets(self, partition: int) -> AsyncIterator[Violation]:
        """The other way round: each member of a set belongs to a run that says so."""
        backend, keys = self._backend, self._backend.partitions[partition]
        client = backend.client
        sets: list[tuple[str, str | None]] = [(keys.running, "r")]
        for pattern, status in (("scheduled:*", "s"), ("runs:*", None)):
            found = client.scan_iter(match=_literal(keys.prefix) + pattern, count=500)
            sets += [(key.decode(), status) async for key in found]
        sets += [
            (keys.ended, None),
            (keys.deadlines, None),
            (keys.expand, None),
            (keys.failures, None),
            (keys.strays, None),
        ]
        for key, letter in sets:
            async for raw, _ in client.zscan_iter(key, count=500):
                if raw == k.RUNNING_ANCHOR.encode():
                    continue
                run_id, _, step = raw.decode().removeprefix("run:").partition("|")
                if not await self._belongs(keys, run_id, "" if letter is None else step, letter, key, raw):
                    yield Violation(run_id, "member", f"{raw.decode()} stands in {key}, but its run does not say so")
        async for violation in self._check_levels(keys):
            yield violation

    async def _belongs(self, keys: k.Keys, run_id: str, step: str, letter: str | None, key: str, raw: bytes) -> bool:
        client = self._backend.client
        for _ in range(3):  # under live traffic the member may have moved since it was read
            fields = await client.hmget(keys.run(run_id), "h", f"s:{step}")
            if fields[0] is not None:
                if letter is None or (fields[1] is not None and fields[1][:1].decode() == letter):
                    return True
                if await client.zscore(keys.expand, run_id) is not None:
                    return True
            if await client.zscore(key, raw) is None:
                return True
        return False

    async def _check_levels(self, keys: k.Keys) -> AsyncIterator[Violation]:
        client = self._backend.client
        known = {member.decode() async for member, _ in client.zscan_iter(keys.levels)}
        prefix = keys.prefix + "scheduled:"
        async for key in client.scan_iter(match=_literal(prefix) + "*", count=500):
            known.add(key.decode()[len(prefix) :])
        for member in sorted(known):
            for _ in range(3):
                pipe = client.pipeline(transaction=not self._backend.server.clustered)
                pipe.zrange(prefix + member, 0, 0, withscores=True)
                pipe.zscore(keys.levels, member)
                head, score = await pipe.execute()
                if score == (head[0][1] if head else None):
                    break
            else:
                yield Violation("", "levels", f"{member} has {score} in {keys.levels}, its earliest step {head}")


def _literal(prefix: str) -> str:
    """A key prefix as a glob that matches just itself."""
    return "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix)


def _entry(stream_id: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(
        stream_id.decode(), fields[b"type"].decode(), fields[b"step"].decode(), unpack(fields[b"data"]),
        fields[b"payload"].decode(),
    )  # fmt: skip


def _stored(payload: tuple[str, str]) -> str:
    stream_id, text = payload
    return f"={text}" if len(text.encode()) <= INLINE else f"@{stream_id}"


def expected_header(snapshot: _Snapshot) -> Header:
    """The run hash's `h` field as the fold gives it."""
    fold, plan = snapshot.fold, snapshot.plan
    statuses = [step.status for step in fold.steps.values()]
    ended = sum(status in ("completed", "failed", "skipped") for status in statuses)
    unplanned = sum(name not in plan for name in fold.steps)
    return Header(
        _RUN_LETTER.get(fold.status, "-"),
        bool(fold.failed), snapshot.plan_number, fold.priority, fold.attempt,
        snapshot.total + unplanned - ended, sum(status in ("scheduled", "running") for status in statuses),
        statuses.count("completed"), fold.created, fold.started or 0, fold.ended or 0, fold.timeout or 0,
    )  # fmt: skip


def expected_step(snapshot: _Snapshot, name: str) -> StepField:
    """The run hash's `s:<step>` field as the fold gives it."""
    step = snapshot.fold.steps.get(name) or StepFold(level=snapshot.fold.priority)
    return StepField(
        _STEP_LETTER[step.status], step.attempt, step.level, step.failures, step.crashes,
        snapshot.fold.unmet(snapshot.plan, name),
        step.available if step.status == "scheduled" else step.lease, step.ended, _KINDS[step.kind],
    )  # fmt: skip


def _check_hash(run_id: str, snapshot: _Snapshot) -> list[Violation]:
    fold, fields = snapshot.fold, snapshot.hash
    names = {*fold.steps, *(field[2:] for field in fields if field.startswith("s:"))}
    expected: dict[str, object] = {"h": expected_header(snapshot)}
    expected.update((f"s:{name}", expected_step(snapshot, name)) for name in names)
    expected.update((f"o:{name}", _stored(step.output)) for name, step in fold.steps.items() if step.output)
    expected.update((f"u:{name}", str(step.since)) for name, step in fold.steps.items() if step.since)
    expected["f"] = fold.failed or ""
    if fold.failures:
        expected["e"] = "1"
    if fold.input:
        expected["i"] = _stored(fold.input)
    if not snapshot.plan_number:
        expected["w"] = fold.slug
    found = {name: _parse_field(name, raw) for name, raw in fields.items()}
    found.setdefault("f", "")
    return [
        Violation(run_id, "hash", f"field {name} is {found.get(name)!r}, expected {expected.get(name)!r}")
        for name in sorted(expected.keys() | found.keys())
        if found.get(name) != expected.get(name)
    ]


def _parse_field(name: str, raw: bytes) -> object:
    if name == "h":
        return parse_header(raw)
    return parse_step(raw) if name.startswith("s:") else raw.decode()


def _check_progress(run_id: str, snapshot: _Snapshot, expanding: bool) -> list[Violation]:
    """A live run of the engine always has something under way."""
    fold = snapshot.fold
    if not fold.live or expanding or not snapshot.plan_number:
        return []
    if any(step.status in ("scheduled", "running") for step in fold.steps.values()):
        return []
    return [Violation(run_id, "stranded", "the run is live, but none of its steps is scheduled or running")]
