"""Looks at a namespace that cost the same however many runs it keeps: for pages, which must come at once.

The figures of `analytics.py` fold every event of a window and are exact; these read indexes for what can be counted there, and the
newest runs or failures for what cannot, and say how many they looked at. Nothing here writes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from redisflow.backend import keys as k
from redisflow.backend.entries import entry_of, event_with_id, order
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import parse_header, parse_step
from redisflow.backend.redis.walk import decode_counted
from redisflow.codec import decode_event, unpack
from redisflow.model.analytics import Counter, Window, counted_names
from redisflow.model.events import parse_event
from redisflow.model.workflow import Plan

MOST_RUNNING = 200
ENTRIES = 100
TERMINAL = ("completed", "failed", "cancelled")
LIVE = ("pending", "running")


class RunningStep(NamedTuple):
    """A step that a worker holds now; times in µs since the epoch."""

    workflow_slug: str
    run_id: str
    step_id: str
    attempt_number: int
    worker_id: str
    started_at: int
    last_heartbeat: int


async def _pipeline(backend: RedisBackend, calls: list[tuple[Any, ...]]) -> list[Any]:
    """Answers of reading commands, each a method of the library's client with its arguments."""

    async def read() -> list[Any]:
        pipe = backend.client.pipeline(transaction=False)
        for name, *arguments in calls:
            options = arguments.pop() if arguments and isinstance(arguments[-1], dict) else {}
            getattr(pipe, name)(*arguments, **options)
        found: list[Any] = await pipe.execute()
        return found

    return await backend.server.retry(read) if calls else []


async def ends_by_time(backend: RedisBackend, edges: list[int]) -> list[int]:
    """Runs that ended in each of the spans between neighbouring times (µs, from inclusive, to exclusive)."""
    spans = list(pairwise(edges))
    calls = [("zcount", keys.ended, low, f"({high}") for keys in backend.partitions for low, high in spans]
    counts = await _pipeline(backend, calls)
    return [sum(counts[index :: len(spans)]) for index in range(len(spans))]


async def status_counts(backend: RedisBackend, since: int, slugs: list[str] | None = None) -> dict[str, int]:
    """Runs created since a time (µs), by status."""
    names = await backend.slugs_with_runs() if slugs is None else slugs
    statuses = (*LIVE, *TERMINAL)
    places = [(keys, slug, status) for keys in backend.partitions for slug in names for status in statuses]
    calls = [("zcount", keys.index(slug, status), since, "+inf") for keys, slug, status in places]
    found = dict.fromkeys(statuses, 0)
    for (_, _, status), count in zip(places, await _pipeline(backend, calls), strict=True):
        found[status] += count
    return found


async def counts_by_workflow(backend: RedisBackend, slugs: list[str]) -> dict[str, dict[str, int]]:
    """All runs kept of each workflow, by status."""
    statuses = (*LIVE, *TERMINAL)
    places = [(slug, status, keys) for slug in slugs for status in statuses for keys in backend.partitions]
    counts = await _pipeline(backend, [("zcard", keys.index(slug, status)) for slug, status, keys in places])
    found = {slug: dict.fromkeys(statuses, 0) for slug in slugs}
    for (slug, status, _), count in zip(places, counts, strict=True):
        found[slug][status] += count
    return found


async def count_runs(backend: RedisBackend, runs: list[tuple[str, str]], counter: Counter) -> None:
    """Feed a counter with the first events of some runs, given as (run id, workflow slug)."""
    calls = [("xrange", backend.keys_of(run).events(run), {"count": ENTRIES}) for run, _ in runs]
    names = frozenset(name.encode() for name in counted_names(counter))
    window = Window(0, 2**53)
    for (run_id, slug), entries in zip(runs, await _pipeline(backend, calls), strict=True):
        for event in decode_counted(entries, slug, run_id, names, window):
            counter.add(event)


async def newest_failures(backend: RedisBackend, since: int, limit: int) -> tuple[int, int]:
    """The time of the limit-th newest failure of a step since a time, else that time, and how many there are since."""
    calls: list[tuple[Any, ...]] = []
    for keys in backend.partitions:
        options = {"start": 0, "num": limit, "withscores": True}
        calls += [("zcount", keys.failures, since, "+inf"), ("zrevrangebyscore", keys.failures, "+inf", since, options)]
    replies = await _pipeline(backend, calls)
    times = sorted((int(at) for page in replies[1::2] for _, at in page), reverse=True)
    return (times[limit - 1] if len(times) >= limit else since), sum(replies[::2])


async def latest_failures(backend: RedisBackend, limit: int) -> list[Any]:
    """The newest StepFailed events of all runs, newest first."""
    options = {"desc": True, "withscores": True}
    replies = await _pipeline(
        backend, [("zrange", keys.failures, 0, limit - 1, options) for keys in backend.partitions]
    )
    newest = sorted(((at, member) for page in replies for member, at in page), reverse=True)[:limit]
    places = [member.decode().partition("|")[::2] for _, member in newest]
    calls = [("xrevrange", backend.keys_of(run).events(run), entry_of(at)) for run, at in places]
    events = []
    for (run_id, at), found in zip(places, await _pipeline(backend, calls), strict=True):
        context, event = await backend.run_context(run_id), event_with_id(found, at)
        if event is not None and context is not None:
            events.append(parse_event(decode_event(at, event, context[0], run_id, context[1])))
    return events


async def running_steps(backend: RedisBackend, limit: int = MOST_RUNNING) -> tuple[list[RunningStep], int]:
    """Steps that workers hold now, and how many there are."""
    found: list[RunningStep] = []
    total = 0
    for partition, keys in enumerate(backend.partitions):
        size, page = await _pipeline(
            backend, [("zcard", keys.running), ("zrange", keys.running, 0, limit, {"withscores": True})]
        )
        members = [(m.decode().partition("|"), int(at)) for m, at in page if m.decode() != k.RUNNING_ANCHOR]
        total += size - 1
        states = await _pipeline(backend, [("hmget", keys.run(m[0]), "h", "w", f"s:{m[2]}") for m, _ in members])
        for ((run_id, _, step_id), beat), (header, slug, state) in zip(members, states, strict=True):
            if header is None or state is None:
                continue
            head, step = parse_header(header), parse_step(state)
            info = await backend.plan_info(partition, head.plan) if head.plan else None
            name = info.slug if info else (slug or b"-").decode()
            found.append(RunningStep(name, run_id, step_id, step.attempt, "", step.lease, beat))
    found.sort(key=lambda step: step.started_at)
    return await _with_workers(backend, found[:limit]), max(0, total)


async def _with_workers(backend: RedisBackend, steps: list[RunningStep]) -> list[RunningStep]:
    """The worker stands in the StepStarted that the lease names."""
    calls = [
        ("xrange", backend.keys_of(s.run_id).events(s.run_id), {"min": s.started_at, "max": s.started_at})
        for s in steps
    ]
    named = []
    for step, entries in zip(steps, await _pipeline(backend, calls), strict=True):
        starts = (
            unpack(entry[b"data"]).get("wi") for _, entry in entries
            if entry[b"type"] == b"StepStarted" and entry[b"step"].decode() == step.step_id
        )  # fmt: skip
        named.append(step._replace(worker_id=next(starts, None) or "unknown"))
    return named


async def plan_of_version(backend: RedisBackend, version: str) -> Plan | None:
    """The whole plan of a version; None where no run was submitted with it."""
    for keys in backend.partitions:
        (number,) = await _pipeline(backend, [("hget", keys.plans, version)])
        if number is not None:
            (text,) = await _pipeline(backend, [("hget", keys.plan(int(number)), "json")])
            return Plan.model_validate_json(text) if text else None
    return None


async def read_after(backend: RedisBackend, cursors: dict[str, str], limit: int) -> dict[str, list[tuple[str, Any]]]:
    """Events of each run behind a stream id, from so many entries at most: one command a run, one round trip a node."""
    runs = list(cursors)
    calls = [("xrange", backend.keys_of(run).events(run), {"min": f"({cursors[run]}", "count": limit}) for run in runs]
    replies = await _pipeline(backend, calls)
    return {
        run: [(stream_id.decode(), event) for stream_id, event in events]
        for run, events in zip(runs, replies, strict=True)
    }


async def rest_of_entry(backend: RedisBackend, run_id: str, stream_id: str) -> list[tuple[str, Any]]:
    """Events behind one in its own entry: a reader that was cut off there goes on with them."""
    (events,) = await _pipeline(backend, [("xrevrange", backend.keys_of(run_id).events(run_id), entry_of(stream_id))])
    return [(found.decode(), event) for found, event in reversed(events) if order(found.decode()) > order(stream_id)]


async def last_stream_id(backend: RedisBackend, run_id: str) -> str:
    """Stream id of a run's newest event; `0-0` where there is none."""
    (entries,) = await _pipeline(backend, [("xrevrange", backend.keys_of(run_id).events(run_id), {"count": 1})])
    return entries[0][0].decode() if entries else "0-0"
