"""Faults by a seeded schedule: which, when, how long. The log of it is the seed and the times, so a soak can be run again."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import redis as redis_sync

from bench.soak.world import World

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """One fault that was injected.

    Attributes:
        at, until: when it began and when it was healed, in seconds of the soak.
    """

    name: str
    at: float
    until: float


class Nemesis:
    """Injects faults one after the other, in a thread of its own, with a pause between two.

    Args:
        world: what suffers.
        seed: of the schedule.
        say: told of each fault.
    """

    def __init__(self, world: World, seed: int, say: Say) -> None:
        self.world = world
        self.faults: list[Fault] = []
        self._chance = random.Random(seed)
        self._say = say
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self._kinds: list[Callable[[], str]] = [
            self.kill_worker, self.kill_worker, self.freeze_worker, self.drain_worker, self.kill_reclaimer, self.kill_server,
            self.kill_server, self.freeze_server, self.long_outage, self.cut_connections, self.flush_functions, self.hog,
            self.read_only, self.kill_everyone,
        ]  # fmt: skip

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

    @property
    def clock(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def _run(self) -> None:
        while not self._stop.wait(self._chance.uniform(0.5, 3)):
            kind = self._chance.choice(self._kinds)
            at = self.clock
            what = kind()
            self.faults.append(Fault(kind.__name__.replace("_", " "), at, self.clock))
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

    def kill_server(self) -> str:
        """SIGKILL of Redis; what it acknowledged is in the kernel's hands."""
        self.world.server.kill()
        self._pause(0, 2)
        self.world.server.start()
        self.world.await_server()
        return ""

    def freeze_server(self) -> str:
        """SIGSTOP of Redis for less than a threshold."""
        self.world.server.freeze()
        self._pause(0.1, 2)
        self.world.server.thaw()
        return ""

    def long_outage(self) -> str:
        """Redis away for longer than the stale threshold: no crash of the workers."""
        self.world.server.freeze()
        self._pause(4, 7)
        self.world.server.thaw()
        return ""

    def cut_connections(self) -> str:
        """Every connection breaks, some tens of times."""
        with self.world.control() as control:
            for _ in range(self._chance.randrange(1, 40)):
                with contextlib.suppress(redis_sync.RedisError):
                    control.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
                self._pause(0, 0.05)
        return ""

    def flush_functions(self) -> str:
        """The library is gone, again and again."""
        with self.world.control() as control:
            for _ in range(100):
                control.function_flush()
                self._pause(0, 0.01)
        return ""

    def hog(self) -> str:
        """Somebody's endless script: BUSY."""

        def run() -> None:
            with self.world.control() as control, contextlib.suppress(redis_sync.RedisError):
                control.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()
        self._pause(0.3, 1.5)
        with self.world.control() as control:
            while thread.is_alive():
                with contextlib.suppress(redis_sync.RedisError):
                    control.script_kill()
                thread.join(0.05)
        return ""

    def read_only(self) -> str:
        """A role taken away and given back."""
        with self.world.control() as control:
            control.replicaof("127.0.0.1", 1)
            self._pause(0.2, 2)
            control.replicaof("NO", "ONE")
        return ""
