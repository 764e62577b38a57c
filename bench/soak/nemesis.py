"""Faults by a seeded schedule: which, when, how long. The log of it is the seed and the times, so a soak can be run again."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from bench.soak.servers import Servers
from bench.soak.world import World

S = TypeVar("S", bound=Servers)
Say = Callable[[str], None]
BEFORE, AFTER = 2.0, 5.0  # seconds: a step may begin late whose claim a failover lost


@dataclass(frozen=True)
class Fault:
    """One fault that was injected.

    Attributes:
        at, until: when it began and when it was healed, in seconds of the soak.
    """

    name: str
    at: float
    until: float


class Nemesis(Generic[S]):
    """Injects faults one after the other, in a thread of its own, with a pause between two; here those of workers.

    Args:
        world: what suffers.
        seed: of the schedule.
        say: told of each fault.
    """

    def __init__(self, world: World[S], seed: int, say: Say) -> None:
        self.world = world
        self.faults: list[Fault] = []
        self._chance = random.Random(seed)
        self._say = say
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self.kinds: list[Callable[[], str]] = [
            self.kill_worker, self.kill_worker, self.freeze_worker, self.drain_worker, self.kill_reclaimer, self.kill_everyone,
        ]  # fmt: skip
        self.failovers: list[Callable[[], str]] = []  # those of `kinds` by which a replica takes the place of a primary
        self.took_over: list[Fault] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let the fault in hand end, and heal everything."""
        self._stop.set()
        self._thread.join()
        self.world.heal()

    @property
    def counts(self) -> dict[str, int]:
        """How often each fault was injected."""
        return dict(sorted(Counter(fault.name for fault in self.faults).items()))

    def near_failover(self, at: float) -> bool:
        """Whether a replica took a primary's place about then, by the clock of `time.monotonic`."""
        return any(fault.at - BEFORE <= at - self._began <= fault.until + AFTER for fault in self.took_over)

    @property
    def clock(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def _run(self) -> None:
        while not self._stop.wait(self._chance.uniform(0.5, 3)):
            kind = self._chance.choice(self.kinds)
            at = self.clock
            what = kind()
            self.faults.append(Fault(kind.__name__.replace("_", " "), at, self.clock))
            if kind in self.failovers:
                self.took_over.append(self.faults[-1])
            self._say(f"{at:7.2f} s  {kind.__name__.replace('_', ' ')}{what}, healed after {self.clock - at:.2f} s")

    def _pause(self, low: float, high: float) -> str:
        time.sleep(self._chance.uniform(low, high))
        return ""

    def kill_worker(self) -> str:
        """SIGKILL, and another in its place."""
        child = self._chance.choice(self.world.workers)
        child.kill()
        self._pause(0, 1)
        child.start()
        return f" ({child.name})"

    def freeze_worker(self) -> str:
        """SIGSTOP past its leases, then SIGCONT: a zombie."""
        child = self._chance.choice(self.world.workers)
        child.freeze()
        self._pause(1, 6)
        child.thaw()
        return f" ({child.name})"

    def drain_worker(self) -> str:
        """A deploy."""
        child = self._chance.choice(self.world.workers)
        child.drain()
        child.start()
        return f" ({child.name})"

    def kill_reclaimer(self) -> str:
        """SIGKILL, and another in its place."""
        child = self._chance.choice(self.world.reclaimers)
        child.kill()
        self._pause(0, 1)
        child.start()
        return f" ({child.name})"

    def kill_everyone(self) -> str:
        """Power: all workers and reclaimers at once."""
        children = [*self.world.workers, *self.world.reclaimers]
        for child in children:
            child.kill()
        for child in children:
            child.start()
        return ""
