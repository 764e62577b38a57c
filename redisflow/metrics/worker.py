"""Metrics of one worker process, counted a turn: a turn under load carries dozens of steps, so steps pay next to nothing.

The loop counts into plain numbers; the thread that answers `/metrics` reads them. What runs and steps came to is told for the whole
namespace by `NamespaceMetrics`; here it is how this process gets along.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from redisflow.backend.turns import FIELDS, Lane, TurnAnswer
from redisflow.metrics.families import counter, counters, gauge, histogram
from redisflow.worker import Worker

OUTCOMES = {"c": "completed", "f": "failed", "k": "skipped", "l": "released"}
SECONDS = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, float("inf"))
SIZES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, float("inf"))


class _Tally:
    """A histogram that one thread counts into."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * len(bounds)
        self._sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, text: str) -> Metric:
        return histogram(name, text, dict(zip(self._bounds, self._counts, strict=True)), self._sum)


class WorkerMetrics(Collector):
    """Watches the turns of a worker.

    Args:
        worker: started.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._turns = 0
        self._outcomes = dict.fromkeys(OUTCOMES, 0)
        self._round_trips = _Tally(SECONDS)
        self._reported = _Tally(SIZES)
        self._claimed = _Tally(SIZES)
        for link in worker.links:
            link.observe(self._on_turn)

    def _on_turn(self, lane: Lane, answer: TurnAnswer) -> None:
        self._turns += 1
        self._round_trips.add(time.monotonic() - lane.sent_at)
        self._claimed.add(len(answer.claims))
        self._reported.add(len(answer.answers))
        for kind in lane.outcomes[3::FIELDS]:
            self._outcomes[kind] += 1

    def collect(self) -> Iterator[Metric]:
        """Families of now."""
        worker = self._worker
        yield counter("redisflow_worker_turns", "Turns answered.", self._turns)
        repeats = sum(link.repeats for link in worker.links)
        yield counter("redisflow_worker_turn_repeats", "Turns sent again after a fault.", repeats)
        yield self._round_trips.family("redisflow_worker_turn_round_trip_seconds", "From a turn sent to its answer.")
        yield self._reported.family("redisflow_worker_turn_outcomes", "Outcomes a turn reported.")
        yield self._claimed.family("redisflow_worker_turn_claims", "Steps a turn claimed.")
        handovers = sum(link.handovers for link in worker.links)
        yield counter("redisflow_worker_handovers", "Steps that a submission claimed for this worker.", handovers)
        rows = [([OUTCOMES[kind]], count) for kind, count in self._outcomes.items()]
        yield counters("redisflow_worker_outcomes", "Outcomes reported by this worker.", ["outcome"], rows)
        yield gauge("redisflow_worker_slots", "Slots of this worker.", worker.concurrency)
        yield gauge("redisflow_worker_running_steps", "Steps that run here.", worker.running)
        age = worker.heartbeat_age
        yield gauge("redisflow_worker_heartbeat_age_seconds", "Since all partitions answered a heartbeat.", age)
        retries = worker.backend.server.retries
        yield counter("redisflow_redis_retries", "Calls to Redis that this process has repeated.", retries)
