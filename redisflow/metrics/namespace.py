"""Metrics of a whole namespace, read from the backend: what all workers did, what waits, how the server is.

Counters grow from the start of this process: the rollups of closed minutes are added up once, the running minute is read anew.
Every process that serves these tells of the same events, so queries take `max` over instances, never `sum`. Labels are slugs of
registered workflows and names of queues, so their number is bounded; the rest is `other`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from math import ldexp

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.health import Health, look
from redisflow.backend.redis.rollups import MINUTE, Rollups
from redisflow.metrics.families import counter, counters, gauge, gauges, histogram
from redisflow.model.errors import RedisflowError
from redisflow.model.histogram import Histogram, middle_of

log = logging.getLogger("redisflow.metrics")
FRESH_FOR = 3.0  # seconds that a look at the server serves
PATIENCE = 5.0  # seconds for a look
LEAST, MOST = (
    8,
    37,
)  # bounds of histograms are 2^8 µs (256 µs) to 2^37 µs (38 hours): just where buckets of the rollups begin
OTHER = "other"  # stands for a workflow that is not registered, and for a queue that no registered one names
RUN_ENDS = {"completed": "WorkflowCompleted", "failed": "WorkflowFailed", "cancelled": "WorkflowCancelled"}
STEP_ENDS = {
    "completed": "StepCompleted",
    "failed": "StepFailed",
    "skipped": "StepSkipped",
    "reclaimed": "StepReclaimed",
}


class NamespaceMetrics(Collector):
    """Collects from the backend, at most once in three seconds however many ask.

    Args:
        backend: opened.
    """

    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._health: Health | None = None
        self._closed = Rollups(0, 0)
        self._running = Rollups(0, 0)
        self._minute: int | None = None
        self._slugs: frozenset[str] = frozenset()
        self._queues: frozenset[str] = frozenset()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    async def response(self, accept: str = "") -> tuple[bytes, str]:
        """Body and content type of `/metrics`, for a web application.

        Args:
            accept: the request's Accept header: OpenMetrics where it asks for it, else the text format.
        """
        await self.refresh()
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    async def refresh(self) -> None:
        """Look at the server, unless that was done just now; where it does not answer, `redisflow_up` becomes 0."""
        async with self._lock:
            if time.monotonic() - self._read_at < FRESH_FOR:
                return
            try:
                async with asyncio.timeout(PATIENCE):
                    records = await self._backend.workflow_records()
                    self._slugs = frozenset(str(record["slug"]) for record in records)
                    self._queues = frozenset(
                        str(step["queue"]) for record in records for step in record["plan"]["steps"]
                    )
                    self._take(await self._backend.get_rollups_since(self._minute))
                    self._health = await look(self._backend)
            except (RedisflowError, TimeoutError) as error:
                log.warning("no metrics of the namespace: %s", error or f"no answer within {PATIENCE:g} s")
                self._health = None
            self._read_at = time.monotonic()

    def _take(self, minutes: list[Rollups]) -> None:
        *closed, self._running = minutes
        if self._minute is None:  # what was before this process is no growth
            self._closed.merge(self._running, -1)
        for rollups in closed:
            self._closed.merge(rollups)
        self._minute = self._running.start_us // MINUTE

    def collect(self) -> Iterator[Metric]:
        """Families of what was read last."""
        health = self._health
        yield gauge("redisflow_up", "Whether the server answered the last look.", float(health is not None))
        yield counter(
            "redisflow_redis_retries", "Calls to Redis that this process has repeated.", self._backend.server.retries
        )
        if self._minute is not None:
            totals = Rollups(0, 0)
            totals.merge(self._closed)
            totals.merge(self._running)
            yield from self._counted(totals)
        if health is not None:
            yield from _queue_depths(health, self._queues)
            yield from _services(health)
            yield from _server(health)

    def _counted(self, totals: Rollups) -> Iterator[Metric]:
        by_slug = {slug: Rollups(0, 0) for slug in sorted(self._slugs)}
        for slug, types in totals.events.items():
            name = slug if slug in self._slugs else OTHER
            by_slug.setdefault(name, Rollups(0, 0)).merge(Rollups(0, 0, {slug: types}))
        for name, kind, text in (
            ("redisflow_runs_submitted", "RunSubmitted", "Runs submitted."),
            ("redisflow_step_attempts_started", "StepStarted", "Attempts of steps that a worker began."),
            ("redisflow_step_retries", "StepRetrying", "Failed attempts that were scheduled again."),
            ("redisflow_step_reclaims", "StepReclaimed", "Attempts taken back from workers that had died."),
        ):
            yield counters(name, text, ["workflow"], [([slug], of.total(kind)) for slug, of in by_slug.items()])
        for name, ends, text in (
            ("redisflow_runs_ended", RUN_ENDS, "Runs that ended, by outcome."),
            ("redisflow_step_attempts_ended", STEP_ENDS, "Attempts of steps that ended, by outcome."),
        ):
            rows = [([slug, end], of.total(kind)) for slug, of in by_slug.items() for end, kind in ends.items()]
            yield counters(name, text, ["workflow", "outcome"], rows)
        yield _spread("redisflow_scheduling_latency_seconds", "Wait of a due attempt for a worker.", totals.waits)
        yield _spread("redisflow_step_duration_seconds", "Time of attempts that completed or failed.", totals.steps)
        yield _spread("redisflow_run_duration_seconds", "Time of runs from submission to end.", totals.runs)


def _spread(name: str, text: str, found: Histogram) -> Metric:
    """A histogram in seconds; its sum is within 3.2 %, as its values are known by their bucket."""
    counts = {ldexp(1e-6, power): 0 for power in range(LEAST, MOST + 1)} | {float("inf"): 0}
    total = 0.0
    for bucket, count in found.buckets.items():
        power = bucket // 16  # the bucket lies within 2^(power-1) … 2^power µs
        counts[ldexp(1e-6, max(LEAST, power)) if power <= MOST else float("inf")] += count
        total += middle_of(bucket) * count
    return histogram(name, text, counts, max(0.0, total) / 1e6)


def _queue_depths(health: Health, known: frozenset[str]) -> Iterator[Metric]:
    steps: dict[tuple[str, str], int] = {}
    oldest: dict[str, float] = {}
    for depth in health.queues:
        queue = depth.queue if depth.queue in known else OTHER
        for state in ("due", "delayed", "running"):
            steps[queue, state] = steps.get((queue, state), 0) + getattr(depth, state)
        oldest[queue] = max(oldest.get(queue, 0), (depth.oldest_us or 0) / 1e6)
    yield gauges("redisflow_queue_steps", "Steps in a queue, by state.", ["queue", "state"], steps.items())
    ages = [([queue], age) for queue, age in oldest.items()]
    yield gauges("redisflow_queue_oldest_due_seconds", "How long the oldest due step has waited.", ["queue"], ages)


def _services(health: Health) -> Iterator[Metric]:
    found = health.workers
    yield gauge("redisflow_workers", "Workers seen within the stale threshold.", len(found))
    slots = sum(int(worker.get("concurrency", 0)) for worker in found)
    yield gauge("redisflow_slots", "Slots of these workers.", slots)
    age = max((worker["seenAgoUs"] for worker in found), default=0) / 1e6
    yield gauge("redisflow_oldest_heartbeat_age_seconds", "Age of the oldest heartbeat of these workers.", age)
    if health.round_ago_us is not None:
        ago = health.round_ago_us / 1e6
        yield gauge("redisflow_reclaimer_round_age_seconds", "Since the last round of a reclaimer.", ago)


def _server(health: Health) -> Iterator[Metric]:
    yield gauge("redisflow_redis_round_trip_seconds", "Round trip of one small call.", health.round_trip_us / 1e6)
    for name, field, text in (
        ("redisflow_redis_memory_bytes", "used_memory", "Memory that the server uses."),
        ("redisflow_redis_aof_enabled", "aof_enabled", "Nodes that write an AOF."),
        ("redisflow_redis_aof_pending_fsyncs", "aof_pending_bio_fsync", "Fsyncs of the AOF that wait."),
        ("redisflow_redis_aof_buffer_bytes", "aof_buffer_length", "Bytes acknowledged and not yet written to the AOF."),
        ("redisflow_redis_aof_delayed_fsyncs", "aof_delayed_fsync", "Fsyncs of the AOF that came late."),
    ):
        value = health.node_sum(field)
        if value is not None:
            yield (counter if field == "aof_delayed_fsync" else gauge)(name, text, value)
    failed = sum(node.get("aof_last_write_status", "ok") != "ok" for node in health.nodes)
    yield gauge("redisflow_redis_aof_write_failed", "Nodes whose last write to the AOF failed.", failed)
