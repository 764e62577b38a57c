"""Looks at a namespace from outside, for people: queues, workers, the server's facts, a live tail.

Nothing here writes, and nothing here is needed to run a workflow. Answers are snapshots: the partitions, and
the steps of a page, are read one after the other while the engine goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.location import FAULTS
from redisflow.backend.patience import heeding_cancel
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.core import check_server
from redisflow.backend.redis.events import TERMINAL
from redisflow.backend.redis.header import parse_header, parse_step
from redisflow.backend.types import PlanInfo
from redisflow.codec import decode_event, decode_payload
from redisflow.model.errors import RedisflowError, ServerUnsuitable

AWAKE_US = 2_000_000
"""A worker that said longer ago than this that it has nothing to do is not counted as idle."""
PAGE = 500


@dataclass
class QueueDepth:
    """One priority level of a queue, over all partitions; `idle` workers are those of the whole queue.

    Attributes:
        due: steps that could run now.
        delayed: steps whose time has not come.
        running: steps that a worker holds.
        oldest_us: how long ago the oldest due step could have run, None where none is due.
        idle: workers of the queue that wait for work.
    """

    queue: str
    level: int
    due: int = 0
    delayed: int = 0
    running: int = 0
    oldest_us: int | None = None
    idle: int = 0


async def _ask(backend: RedisBackend, command: str, *arguments: Any, **options: Any) -> Any:
    """One reading command by its name in the library."""
    call = getattr(backend.client, command)
    return await backend.server.retry(lambda: call(*arguments, **options))


async def queue_depths(backend: RedisBackend) -> list[QueueDepth]:
    """Every queue level that holds a step, by queue, then from the most urgent level down."""
    found: dict[tuple[str, int], QueueDepth] = {}
    now = await backend.now()
    for keys in backend.partitions:
        await _add_scheduled(backend, keys, now, found)
        await _add_running(backend, keys, found)
    for queue in {queue for queue, _ in found}:
        idle = await _idle(backend, queue, now)
        for depth in found.values():
            if depth.queue == queue:
                depth.idle = idle
    return sorted(found.values(), key=lambda depth: (depth.queue, -depth.level))


def _depth(found: dict[tuple[str, int], QueueDepth], queue: str, level: int) -> QueueDepth:
    return found.setdefault((queue, level), QueueDepth(queue, level))


async def _add_scheduled(
    backend: RedisBackend, keys: k.Keys, now: int, found: dict[tuple[str, int], QueueDepth]
) -> None:
    levels = [member.decode().rpartition(":") for member in await _ask(backend, "zrange", keys.levels, 0, -1)]
    pairs = [(queue, int(level)) for queue, _, level in levels]

    async def read() -> Any:
        pipe = backend.client.pipeline(transaction=False)
        for queue, level in pairs:
            key = keys.scheduled(queue, level)
            pipe.zcount(key, "-inf", now)
            pipe.zcard(key)
            pipe.zrange(key, 0, 0, withscores=True)
        return await pipe.execute()

    replies = await backend.server.retry(read) if pairs else []
    for index, (queue, level) in enumerate(pairs):
        due, total, head = replies[3 * index : 3 * index + 3]
        if not total:
            continue
        depth = _depth(found, queue, level)
        depth.due += due
        depth.delayed += total - due
        if due and head:
            depth.oldest_us = max(depth.oldest_us or 0, now - int(head[0][1]))


async def _add_running(backend: RedisBackend, keys: k.Keys, found: dict[tuple[str, int], QueueDepth]) -> None:
    queues: dict[int, dict[str, str]] = {}
    async for page in _pages(backend, keys.running):
        members = [member.decode().partition("|")[::2] for member in page]

        async def read(members: list[tuple[str, str]] = members) -> Any:
            pipe = backend.client.pipeline(transaction=False)
            for run_id, step in members:
                pipe.hmget(keys.run(run_id), "h", "w", f"s:{step}")
            return await pipe.execute()

        for (_, step), (header, slug, state) in zip(members, await backend.server.retry(read), strict=True):
            if header is None or state is None:
                continue  # it ended in between
            number = parse_header(header).plan
            if number and number not in queues:
                queues[number] = await _queues_of_plan(backend, keys.plan(number))
            queue = queues.get(number, {}).get(step, (slug or b"-").decode())
            _depth(found, queue, parse_step(state).level).running += 1


async def _pages(backend: RedisBackend, key: str) -> AsyncIterator[list[bytes]]:
    first = 0
    while True:
        page = await _ask(backend, "zrange", key, first, first + PAGE - 1)
        if page:
            yield page
        if len(page) < PAGE:
            return
        first += PAGE


async def _queues_of_plan(backend: RedisBackend, key: str) -> dict[str, str]:
    text = await _ask(backend, "hget", key, "json")
    return {step["id"]: step["queue"] for step in decode_payload(text)["steps"]} if text else {}


async def _idle(backend: RedisBackend, queue: str, now: int) -> int:
    """Workers that wait for steps of a queue; one that serves several partitions counts once."""
    names: set[bytes] = set()
    for keys in backend.partitions:
        names.update(await _ask(backend, "zrangebyscore", keys.sleepers(queue), now - AWAKE_US, "+inf"))
    return len(names)


async def workers(backend: RedisBackend, seen_within_us: int) -> list[dict[str, Any]]:
    """What each worker says of itself, with `running` steps and `seenAgoUs`, of those seen lately."""
    now = await backend.now()
    found: dict[str, dict[str, Any]] = {}
    for keys in backend.partitions:
        seen = await _ask(backend, "zrangebyscore", keys.workers, now - seen_within_us, "+inf", withscores=True)
        for name, at in seen:
            info = await _ask(backend, "hget", keys.worker(name.decode()), "info")
            worker = found.setdefault(name.decode(), {"running": 0, **(json.loads(info) if info else {})})
            worker["seenAgoUs"] = min(worker.get("seenAgoUs", now), max(0, now - int(at)))
    return list(found.values())


async def plan_of_run(backend: RedisBackend, run_id: str) -> PlanInfo | None:
    """The plan that a run was submitted with; None where there is no such run, or it has no plan."""
    keys = backend.keys_of(k.check_run_id(run_id))
    header = await _ask(backend, "hget", keys.run(run_id), "h")
    number = parse_header(header).plan if header else 0
    return await backend.plan_info(backend.partition(run_id), number) if number else None


@dataclass
class Facts:
    """What `doctor` judges.

    Attributes:
        info: INFO of a node.
        config: CONFIG GET of what matters; empty where the server does not allow it.
        unsuitable: why the namespace cannot be opened, or None.
        clock_us: the server's clock less ours, µs.
        round_trip_us: how long the question for it took.
        scripts: number of scripts that load.
        script_error: why one does not, or None.
        cluster: CLUSTER INFO, None for a standalone server.
        meta: a hash a partition: skew, tick.
    """

    info: dict[str, Any]
    config: dict[str, str] = field(default_factory=dict)
    unsuitable: str | None = None
    clock_us: int = 0
    round_trip_us: int = 0
    scripts: int = 0
    script_error: str | None = None
    cluster: dict[str, Any] | None = None
    meta: list[dict[str, int]] = field(default_factory=list)


WANTED_CONFIG = ("appendfsync", "stream-node-max-bytes", "zset-max-listpack-entries")


async def gather_facts(backend: RedisBackend, deadline_us: int) -> Facts:
    """Connect and look at all that `doctor` judges, of a server too that redisflow refuses.

    Args:
        backend: not opened yet; opened after, unless the server is unsuitable.
        deadline_us: how long to ride out an unreachable server.

    Raises:
        ServerUnavailable: it cannot be reached.
    """
    await backend.server.connect(deadline_us=deadline_us)
    facts = Facts(_one(await _ask(backend, "info", "everything")))
    try:
        check_server(facts.info)
        facts.config = await _config(backend)
        await _load_scripts(backend, facts)
        before = time.time_ns() // 1000
        at = await backend.server_time()
        after = time.time_ns() // 1000
        facts.clock_us, facts.round_trip_us = at - (before + after) // 2, after - before
        if backend.server.clustered:
            facts.cluster = _one(await _ask(backend, "execute_command", "CLUSTER INFO"))
        await backend.initialize(deadline_us=deadline_us)
        for keys in backend.partitions:
            found = await _ask(backend, "hmget", keys.meta, "skew", "tick")
            named = zip(("skew", "tick"), found, strict=True)
            facts.meta.append({name: int(float(value)) for name, value in named if value is not None})
    except ServerUnsuitable as error:
        facts.unsuitable = str(error)
    except RedisflowError as error:
        facts.unsuitable = facts.unsuitable or str(error)
    return facts


def _one(reply: Any) -> dict[str, Any]:
    """The reply of one node, where a Cluster's client gives one of several by name."""
    values = list(reply.values())
    several = bool(values) and all(isinstance(value, dict) for value in values)
    return dict(values[0] if several else reply)


async def _config(backend: RedisBackend) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in WANTED_CONFIG:
        try:
            found.update(_one(await heeding_cancel(partial(backend.client.config_get, name))))
        except FAULTS:  # managed servers forbid CONFIG; what cannot be read is told as such
            return {}
    return found


async def _load_scripts(backend: RedisBackend, facts: Facts) -> None:
    library = next(iter(backend.scripts.values())).library
    try:
        for keys in backend.partitions:
            await backend.server.load_library(library, keys)
    except FAULTS as error:
        facts.script_error = library.locate(str(error))
    else:
        facts.scripts = len(backend.scripts)


class Tail:
    """New events of all runs, for a live view: runs that are live at the start, and every run after.

    Args:
        backend: opened.
        limit: runs watched at a time, the newest first.
    """

    def __init__(self, backend: RedisBackend, limit: int = 200) -> None:
        self._backend = backend
        self._limit = limit
        self._since: int | None = None
        self._after: dict[str, str] = {}  # stream id of the last event read, of every run seen
        self._slugs: dict[str, str] = {}
        self._watched: set[str] = set()

    async def poll(self) -> list[dict[str, Any]]:
        """Events in wire form since the last call, in the order in which they happened."""
        await self._look_for_runs()
        watched = sorted(self._watched)

        async def read() -> Any:
            pipe = self._backend.client.pipeline(transaction=False)
            for run_id in watched:
                key = self._backend.keys_of(run_id).events(run_id)
                pipe.xrange(key, min=f"({self._after[run_id]}", count=PAGE)
            return await pipe.execute()

        events = []
        replies = await self._backend.server.retry(read) if watched else []
        for run_id, entries in zip(watched, replies, strict=True):
            for stream_id, entry in entries:
                self._after[run_id] = stream_id.decode()
                wire = decode_event(self._after[run_id], entry, self._slugs[run_id], run_id, lambda _: "")
                events.append(wire)
                if wire["type"] in TERMINAL:
                    self._watched.discard(run_id)
        events.sort(key=lambda wire: int(wire["eventId"]))
        return events

    async def _look_for_runs(self) -> None:
        since = self._since
        if since is None:
            since = self._since = await self._backend.now()
        runs, _ = await self._backend.list_runs(None, (), (), self._limit)
        for run in runs:
            live = run.status in ("pending", "running")
            if live or (run.created_at >= since and run.run_id not in self._after):
                self._watched.add(run.run_id)
                self._slugs[run.run_id] = run.workflow_slug
                self._after.setdefault(run.run_id, "0" if run.created_at >= since else str(since))
