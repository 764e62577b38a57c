"""Workers as events and leases tell of them: what each runs now, and what it has done.

Steps that run now are the `running` sets, each with the StepStarted at its lease. What a worker did is counted over events;
when it was seen last is the latest of its heartbeats and events, so that callers that claim steps by name, and send no
heartbeat of their own, are workers too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from redisflow.backend import keys as k
from redisflow.backend.checks import check_flag, check_list, check_span, check_text, check_time
from redisflow.backend.redis.header import parse_header, parse_step
from redisflow.backend.redis.runs import LIVE
from redisflow.backend.redis.walk import DAY, Walk
from redisflow.codec import decode_event
from redisflow.model.analytics import ActiveStep, ActiveWorker, ActiveWorkersResult, EventTypes, TimeRange, Window
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import (
    BaseEvent,
    StepCompleted,
    StepFailed,
    StepHeartbeat,
    StepReclaimed,
    StepSkipped,
    StepStarted,
)

Span = tuple[int, int] | TimeRange | Mapping[str, int]
"""From and to, both inclusive, in µs since the epoch: a pair, a `TimeRange`, or `{"start_us": …, "end_us": …}`."""


@dataclass
class _Deeds:
    """What is known of a worker; `seen` in µs since the epoch."""

    seen: int = 0
    ended: int = 0
    failed: int = 0
    taken: int = 0
    concurrency: int | None = None
    steps: list[ActiveStep] = field(default_factory=list)

    def see(self, at: int, concurrency: int | None = None) -> None:
        self.seen = max(self.seen, at)
        self.concurrency = concurrency or self.concurrency


class _Running(NamedTuple):
    run_id: str
    step_id: str
    lease: int
    beat: int
    slug: str


class _DeedsCounter:
    """Counts what workers did; an attempt belongs to the worker of its StepStarted until it ends or is taken back."""

    counted: ClassVar[EventTypes] = (
        StepStarted, StepHeartbeat, StepCompleted, StepFailed, StepSkipped, StepReclaimed,
    )  # fmt: skip

    def __init__(self) -> None:
        self.workers: dict[str, _Deeds] = {}
        self._holders: dict[tuple[str, str, int], str] = {}

    def of(self, worker_id: str) -> _Deeds:
        return self.workers.setdefault(worker_id, _Deeds())

    def add(self, event: BaseEvent) -> None:
        """Count an event; those that do not matter are passed by."""
        if isinstance(event, StepStarted):
            self._holders[event.run_id, event.step_id, event.attempt_number] = event.worker_id
            self.of(event.worker_id).see(event.timestamp_us, event.worker_concurrency)
        elif isinstance(event, StepHeartbeat):
            self.of(event.worker_id).see(event.timestamp_us, event.worker_concurrency)
        elif isinstance(event, StepReclaimed):
            self._holders.pop((event.run_id, event.step_id, event.attempt_number), None)
            taken_from = self.of(event.original_worker_id)
            taken_from.taken += 1
            taken_from.see(event.last_heartbeat_us)  # it says nothing of the worker later than that
        elif isinstance(event, StepCompleted | StepFailed | StepSkipped):
            holder = self._holders.pop((event.run_id, event.step_id, event.attempt_number), None)
            if holder is not None:
                deeds = self.of(holder)
                deeds.ended += 1
                deeds.failed += isinstance(event, StepFailed)
                deeds.see(event.timestamp_us)


class Workers(Walk):
    """Who works in the namespace."""

    async def get_active_workers(
        self, stale_threshold_us: int = 30_000_000, include_inactive: bool = False, time_range: Span | None = None
    ) -> ActiveWorkersResult:
        """Workers that run a step or were seen lately: those with most running steps first, then those seen last.

        What they have done is counted over the events of the last day, from the start of `time_range` or the threshold
        where these are longer ago, and over all with `include_inactive`.

        Args:
            stale_threshold_us: how long ago one may have been seen, in µs, inclusive.
            include_inactive: list the others too.
            time_range: only workers last seen within it.

        Raises:
            InvalidArgument: names the argument and what is allowed.
        """
        check_span("stale_threshold_us", stale_threshold_us)
        check_flag("include_inactive", include_inactive)
        span = _span(time_range)
        now = await self.now()
        since = 0 if include_inactive else min(now - DAY, now - stale_threshold_us, span[0] if span else now)
        found = await self._deeds(max(0, since), now)
        listed = [
            _worker(worker_id, deeds) for worker_id, deeds in found.items()
            if (include_inactive or deeds.steps or now - deeds.seen <= stale_threshold_us)
            and (span is None or span[0] <= deeds.seen <= span[1])
        ]  # fmt: skip
        listed.sort(key=lambda worker: (-worker.currently_running_steps, -worker.last_seen_us, worker.worker_id))
        return ActiveWorkersResult(
            workers=tuple(listed),
            total_active_workers=sum(worker.currently_running_steps > 0 for worker in listed),
            total_running_steps=sum(worker.currently_running_steps for worker in listed),
            stale_threshold_us=stale_threshold_us,
        )

    async def get_worker_by_id(self, worker_id: str) -> ActiveWorker | None:
        """A worker, active or not; None where nothing is known of it. Counted over the last day, else over all events."""
        check_text("worker_id", worker_id)
        now = await self.now()
        for since in (max(0, now - DAY), 0):
            deeds = (await self._deeds(since, now)).get(worker_id)
            if deeds is not None:
                return _worker(worker_id, deeds)
        return None

    async def _deeds(self, since: int, now: int) -> dict[str, _Deeds]:
        counter = await self.fold_window(_DeedsCounter(), Window(since, now))
        for partition, keys in enumerate(self.opened):
            async for page in self.scored_pages(keys.workers, since, "+inf"):
                await self._add_beats(keys, page, counter)
            async for running in self._running(partition):
                await self._add_steps(keys, running, counter)
        return counter.workers

    async def _add_beats(self, keys: k.Keys, page: Sequence[tuple[bytes, float]], counter: _DeedsCounter) -> None:
        """Add what workers say of themselves, idle ones too."""

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for worker, _ in page:
                pipe.hget(keys.worker(worker.decode()), "info")
            found: list[Any] = await pipe.execute()
            return found

        for (worker, at), info in zip(page, await self.server.retry(read), strict=True):
            concurrency = json.loads(info).get("concurrency") if info else None
            counter.of(worker.decode()).see(int(at), concurrency)

    async def _running(self, partition: int) -> AsyncIterator[list[_Running]]:
        """Steps of live runs that hold a lease, page by page."""
        keys = self.partitions[partition]
        async for page in self.scored_pages(keys.running, "-inf", "+inf"):
            members = [
                (*member.decode().partition("|")[::2], int(at)) for member, at in page
                if member != k.RUNNING_ANCHOR.encode()
            ]  # fmt: skip

            async def read(members: list[tuple[str, str, int]] = members) -> list[Any]:
                pipe = self.client.pipeline(transaction=False)
                for run_id, step_id, _ in members:
                    pipe.hmget(keys.run(run_id), "h", "w", f"s:{step_id}")
                found: list[Any] = await pipe.execute()
                return found

            replies = await self.server.retry(read) if members else []
            running = []
            for (run_id, step_id, beat), (header, slug, state) in zip(members, replies, strict=True):
                head, step = header and parse_header(header), state and parse_step(state)
                if not head or not step or not step.lease or head.status_word not in LIVE:
                    continue  # it ended in between
                info = await self.plan_info(partition, head.plan) if head.plan else None
                name = info.slug if info else (slug or b"-").decode()
                running.append(_Running(run_id, step_id, step.lease, beat, name))
            yield running

    async def _add_steps(self, keys: k.Keys, running: Sequence[_Running], counter: _DeedsCounter) -> None:
        """Add each running step to its worker, which the StepStarted at the lease names."""

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for step in running:
                pipe.xrange(keys.events(step.run_id), min=step.lease, max=step.lease)
            found: list[Any] = await pipe.execute()
            return found

        for step, entries in zip(running, await self.server.retry(read) if running else [], strict=True):
            for stream_id, entry in reversed(entries):  # all starts of an imported run share one lease
                if entry[b"type"] != b"StepStarted" or entry[b"step"].decode() != step.step_id:
                    continue
                wire = decode_event(stream_id.decode(), entry, step.slug, step.run_id, lambda _: "unknown")
                deeds = counter.of(wire["workerId"])
                deeds.see(max(step.beat, wire["timestampUs"]), wire.get("workerConcurrency"))
                deeds.steps.append(
                    ActiveStep(
                        workflow_slug=step.slug, run_id=step.run_id, step_id=step.step_id,
                        started_at_us=wire["timestampUs"], last_heartbeat_us=max(step.beat, wire["timestampUs"]),
                        slot_index=wire.get("slotIndex"),
                    )
                )  # fmt: skip
                break


def _worker(worker_id: str, deeds: _Deeds) -> ActiveWorker:
    return ActiveWorker(
        worker_id=worker_id, last_seen_us=deeds.seen, currently_running_steps=len(deeds.steps),
        total_steps_processed=deeds.ended, failed_steps=deeds.failed, reclaimed_from_count=deeds.taken,
        active_steps=tuple(sorted(deeds.steps, key=lambda step: (step.started_at_us, step.run_id, step.step_id))),
        worker_concurrency=deeds.concurrency,
    )  # fmt: skip


def _span(given: Span | None) -> tuple[int, int] | None:
    """From and to of a time range.

    Raises:
        InvalidArgument: it is none, or ends before it begins.
    """
    if given is None:
        return None
    if isinstance(given, TimeRange):
        return given.start_us, given.end_us
    if isinstance(given, Mapping):
        pair = [given.get("start_us", given.get("startUs")), given.get("end_us", given.get("endUs"))]
    else:
        pair = check_list("time_range", given, "a start and an end")
    for value in pair:
        check_time("time_range", value)
    if len(pair) != 2 or pair[0] is None or pair[1] is None or pair[0] > pair[1]:
        raise InvalidArgument("time_range", given, "a start and an end not before it, in µs since the epoch")
    return pair[0], pair[1]
