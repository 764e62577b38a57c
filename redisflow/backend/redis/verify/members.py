"""The check the other way round: every key of a partition, and every member of its sets, belongs to a run that says so.

Keys are walked by SCAN and sets by ZSCAN, page by page, with one round trip a page for what the members' runs say. What does not
fit is looked at again alone, member and run in one transaction, since under live traffic it may have moved between the two reads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from redisflow.backend import keys as k
from redisflow.backend.entries import entry_of, event_with_id
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import MALFORMED, STATUSES, Header, StepField, parse_header, parse_step
from redisflow.codec import unpack
from redisflow.model.derived import StepPlan
from redisflow.model.invariants import Violation

PAGE = 500
LOOKS = 3  # at one member before it is reported: on a Cluster the reads of a look are not one transaction
NO_EVENTS, NO_RUN = "has no events", "names a run that does not exist"
MENDED = (NO_EVENTS, NO_RUN)  # why a key may be deleted; one that is merely unknown never is
_LETTERS = {word: letter for letter, word in STATUSES.items()}
_OWNED = ("meta", "plans", "levels", "running", "deadlines", "ended", "failures", "strays", "expand", "workers")
_PASSING = ("once:", "worker:", "sleepers:", "waiters", "stats:")


PlanOf = Callable[[int, int], Awaitable[tuple[str, Mapping[str, StepPlan]]]]


class Said(NamedTuple):
    """What a run's hash and stream say where a member of it was found; `header` and `step` None where they are not there."""

    header: Header | None
    step: StepField | None
    slug: str
    queue: str
    entry: Mapping[bytes, bytes] | None

    @property
    def live(self) -> bool:
        """The run is there and has not ended."""
        return self.header is not None and self.header.status in "pr"


class Member(NamedTuple):
    """What a member says: its run, its step, an entry of its stream, and what they must say for it to stand where it does.

    Attributes:
        entry: a stream id, `-` for the first entry, or "" for none.
        holds: whether what was read bears the member out.
    """

    run_id: str
    holds: Callable[[Said], bool]
    step: str = ""
    entry: str = ""


class Members:
    """Reverse checks of one partition.

    Args:
        backend: opened.
        partition: index.
        plan: gives slug and steps of a plan number of a partition.
    """

    def __init__(self, backend: RedisBackend, partition: int, plan: PlanOf) -> None:
        self._backend = backend
        self._plan = plan
        self._partition = partition
        self._keys = backend.partitions[partition]

    async def check(self) -> AsyncIterator[Violation]:
        """Keys and members that belong to nothing."""
        prefix = self._keys.prefix
        sets: list[str] = []
        page: list[str] = []
        async for key in self._backend.scan_keys(prefix):
            name = key[len(prefix) :]
            if self._reader(name) is not None:
                sets.append(name)
            elif name not in _OWNED:
                page.append(name)
            if len(page) == PAGE:
                for violation in await self._check_keys(page):
                    yield violation
                page = []
        for violation in await self._check_keys(page):
            yield violation
        for name in sorted(set(sets)):
            async for violation in self._check_set(name):
                yield violation
        async for violation in self._check_levels():
            yield violation

    # --- keys -----------------------------------------------------------------------------------------------------------

    async def _check_keys(self, names: Sequence[str]) -> list[Violation]:
        """Keys that are no sets: runs and their streams, plans, records, and what must have a TTL."""
        wrong: list[Violation] = []
        found = await self._atomically(*(partial(self._glance, name) for name in names)) if names else []
        for name, answer in zip(names, found, strict=True):
            if answer > 0 and not (name.startswith("run:") and self._misplaced(name)):
                continue  # a TTL, or the other of a run's two keys
            why = await self._why_stray(name)
            if why and await self._why_stray(name):
                key = self._keys.prefix + name
                owner = _run_of(name) if name.startswith("run:") and not self._misplaced(name) else ""
                wrong.append(Violation(owner, "key", f"{key} {why}", place=(key, "") if why in MENDED else None))
        return wrong

    def _glance(self, name: str, pipe: Any) -> None:
        if name.startswith("run:"):
            run_id, keys = _run_of(name), self._keys
            pipe.exists(keys.run(run_id) if name.endswith(":events") else keys.events(run_id))
        else:
            pipe.ttl(self._keys.prefix + name)

    def _misplaced(self, name: str) -> bool:
        return self._backend.partition(_run_of(name)) != self._partition

    async def _why_stray(self, name: str) -> str:
        """Why a key belongs to nothing; "" where it belongs, or is gone."""
        client, keys, retry = self._backend.client, self._keys, self._backend.server.retry
        key = keys.prefix + name
        if name.startswith("run:"):
            if self._misplaced(name):
                return "is not in the run's own partition"
            run_id = _run_of(name)
            stream, run = await self._atomically(
                lambda pipe: pipe.exists(keys.events(run_id)), lambda pipe: pipe.exists(keys.run(run_id))
            )
            return "" if stream == run else NO_EVENTS if run else "has events, but no hash"
        if name.startswith("plan:"):
            known = await retry(lambda: client.hvals(keys.plans))
            number = name.removeprefix("plan:")
            half_made = number == str(len(known) + 1)  # by a registration that raised; the next one makes it anew
            return "" if half_made or number.encode() in known else "is in no list of plans"
        if name.startswith("idempotency:"):
            return await self._why_stray_record(key)
        if name == "never":
            return "must never exist"
        ttl = await retry(lambda: client.ttl(key))
        if ttl != -1:
            return ""
        return "has no TTL" if name.startswith(_PASSING) else "belongs to nothing, and has no TTL"

    async def _why_stray_record(self, key: str) -> str:
        client, retry = self._backend.client, self._backend.server.retry
        owner = await retry(lambda: client.get(key))
        if owner is None or owner.startswith(b">"):  # reserved for a run elsewhere, which may be on its way
            return ""
        run = self._keys.run(owner.decode())
        there, again = await self._atomically(lambda pipe: pipe.exists(run), lambda pipe: pipe.get(key))
        return "" if there or again != owner else NO_RUN

    async def _atomically(self, *commands: Callable[[Any], object]) -> list[Any]:
        """Replies of a few commands at one moment."""
        backend = self._backend

        async def read() -> list[Any]:
            pipe = backend.client.pipeline(transaction=not backend.server.clustered)
            for command in commands:
                command(pipe)
            found: list[Any] = await pipe.execute()
            return found

        return await backend.server.retry(read)

    # --- members --------------------------------------------------------------------------------------------------------

    def _reader(self, name: str) -> Callable[[str], Member] | None:
        """How to read the members of a set; None for a key that is no such set."""
        if name == "running":
            return lambda member: _step(member, lambda said, step: step.status == "r")
        if name.startswith("scheduled:"):
            queue, level = name.removeprefix("scheduled:").rsplit(":", 1)
            where = (queue, level)
            return lambda member: _step(
                member, lambda said, step: step.status == "s" and (said.queue, str(step.level)) == where
            )
        if name.startswith("runs:"):
            return _index_reader(*name.removeprefix("runs:").split(":", 1))
        if name == "ended":
            return lambda member: Member(member, lambda said: said.header is not None and not said.live)
        if name == "deadlines":
            return lambda member: Member(member.removeprefix("run:"), lambda said: said.live)
        if name in ("expand", "strays"):
            return lambda member: Member(member, lambda said: said.header is not None)
        if name == "failures":
            return _failure
        return None

    async def _check_set(self, name: str) -> AsyncIterator[Violation]:
        key, reader = self._keys.prefix + name, self._reader(name)
        assert reader is not None
        async for page in self._scan_set(key):
            members = [member for member in page if member != k.RUNNING_ANCHOR]
            read = [reader(member) for member in members]
            found = await self._atomically(*(partial(self._ask, member) for member in read)) if read else []
            for member, asked, hash_, entries in zip(members, read, found[::2], found[1::2], strict=True):
                said = await self._said(asked, hash_, entries)
                if not asked.holds(said) and not await self._belongs(key, member, asked):
                    message = f"{member} stands in {key}, but its run does not say so"
                    yield Violation(asked.run_id, "member", message, place=(key, member))

    async def _scan_set(self, key: str) -> AsyncIterator[list[str]]:
        """Members of a sorted set, page by page, some of them twice."""
        client, cursor = self._backend.client, 0
        while True:
            cursor, page = await self._backend.server.retry(partial(client.zscan, key, cursor, count=PAGE))
            yield [raw.decode() for raw, _ in page]
            if not cursor:
                return

    def _ask(self, asked: Member, pipe: Any) -> None:
        pipe.hmget(self._keys.run(asked.run_id), "h", "w", f"s:{asked.step}")
        if asked.entry:
            key = self._keys.events(asked.run_id)
            if asked.entry == "-":
                pipe.xrange(key, count=1)
            else:
                pipe.xrevrange(key, **entry_of(asked.entry))
        else:
            pipe.exists(self._keys.never)  # nothing to read; the replies come in pairs

    async def _said(self, asked: Member, hash_: list[bytes | None], entries: Any) -> Said:
        raw_header, raw_slug, raw_step = hash_
        entry = None
        if asked.entry and entries:
            entry = entries[0][1] if asked.entry == "-" else event_with_id(entries, asked.entry)
        try:
            header = parse_header(raw_header) if raw_header else None
            step = parse_step(raw_step) if raw_step else None
        except MALFORMED:
            header = step = None  # the check of the run itself tells it
        slug, plan = await self._plan(self._partition, header.plan) if header else ("", {})
        slug = slug or (raw_slug or b"-").decode()
        return Said(header, step, slug, plan[asked.step].queue if asked.step in plan else slug, entry)

    async def _belongs(self, key: str, member: str, asked: Member) -> bool:
        for _ in range(LOOKS):
            hash_, entries, score, expanding = await self._atomically(
                partial(self._ask, asked), lambda pipe: pipe.zscore(key, member),
                lambda pipe: pipe.zscore(self._keys.expand, asked.run_id),
            )  # fmt: skip
            said = await self._said(asked, hash_, entries)
            if score is None or asked.holds(said):
                return True
            if asked.step and expanding is not None and said.header is not None and not said.live:
                return True  # a member of an ended run that is still being taken away
        return False

    async def _check_levels(self) -> AsyncIterator[Violation]:
        keys = self._keys
        prefix = keys.prefix + "scheduled:"
        known = {member async for page in self._scan_set(keys.levels) for member in page}
        known.update([key[len(prefix) :] async for key in self._backend.scan_keys(prefix)])
        for member in sorted(known):
            for _ in range(LOOKS):
                head, score = await self._atomically(
                    lambda pipe, key=prefix + member: pipe.zrange(key, 0, 0, withscores=True),  # type: ignore[misc]
                    lambda pipe, member=member: pipe.zscore(keys.levels, member),  # type: ignore[misc]
                )
                if score == (head[0][1] if head else None):
                    break
            else:
                message = f"{member} has {score} in {keys.levels}, its earliest step {head}"
                yield Violation("", "levels", message, place=(keys.levels, member))


def _run_of(name: str) -> str:
    """The run that a key `run:<id>` or `run:<id>:events` belongs to."""
    return name.removeprefix("run:").removesuffix(":events")


def _step(member: str, holds: Callable[[Said, StepField], bool]) -> Member:
    run_id, _, name = member.partition("|")
    return Member(run_id, lambda said: said.live and said.step is not None and holds(said, said.step), step=name)


def _failure(member: str) -> Member:
    run_id, _, stream_id = member.partition("|")
    return Member(run_id, lambda said: said.entry is not None and said.entry[b"type"] == b"StepFailed", entry=stream_id)


def _index_reader(slug: str, what: str) -> Callable[[str], Member]:
    letter = _LETTERS.get(what, "?")

    def in_status(said: Said) -> bool:
        return said.header is not None and (said.slug, said.header.status) == (slug, letter)

    def has_tag(said: Said) -> bool:
        tags = unpack(said.entry[b"data"]).get("tg") if said.entry else None
        return said.slug == slug and what.removeprefix("tag:") in (tags or ())

    if what.startswith("tag:"):
        return lambda member: Member(member, has_tag, entry="-")
    return lambda member: Member(member, in_status)
