"""The processes of a soak: its servers, workers, reclaimers; each can be killed, frozen and started again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from bench.soak.child import ROOT, Child
from bench.soak.servers import Servers
from redisflow.settings import Settings

LIMITS = {"stale_after": "3s", "heartbeat_interval": "500ms", "reclaim_interval": "200ms", "drain_timeout": "2s"}
NAMESPACE = "soak"
S = TypeVar("S", bound=Servers)


class Execution(NamedTuple):
    """One line of the ledger.

    Attributes:
        at: when it began, by the clock of `time.monotonic`, which all processes of a machine share.
    """

    run: str
    step: str
    at: float


class World(Generic[S]):
    """Everything that runs outside this process.

    Args:
        servers: running.
        workers, reclaimers: how many processes of each.
    """

    def __init__(self, servers: S, workers: int, reclaimers: int) -> None:
        self.servers = servers
        self.folder = Path(tempfile.mkdtemp(prefix="rfs-"))
        self.ledger = self.folder / "ledger"
        self._log = (self.folder / "log").open("ab")
        given = {f"REDISFLOW_{name.upper()}": str(value) for name, value in {**LIMITS, **servers.settings}.items()}
        environment = {
            **os.environ, **given, "REDISFLOW_NAMESPACE": NAMESPACE, "PYTHONPATH": str(ROOT), "SOAK_LEDGER": str(self.ledger),
        }  # fmt: skip
        worker = [sys.executable, "-m", "redisflow", "worker", "bench.soak.flows", "--concurrency", "20"]
        reclaimer = [sys.executable, "-m", "redisflow", "reclaimer"]
        self.workers = [Child(f"worker {n}", worker, self._log, environment) for n in range(workers)]
        self.reclaimers = [Child(f"reclaimer {n}", reclaimer, self._log, environment) for n in range(reclaimers)]

    def settings(self) -> Settings:
        """As the processes have them."""
        return Settings(namespace=NAMESPACE, **LIMITS, **self.servers.settings)

    def heal(self) -> None:
        """Everything runs again."""
        self.servers.heal()
        for child in (*self.workers, *self.reclaimers):
            child.heal()

    def executions(self) -> list[Execution]:
        """Every line of the ledger."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [Execution(run, step, float(at)) for run, step, at in (line.split() for line in lines)]

    def close(self) -> None:
        """End all processes; the folder goes too."""
        for child in (*self.workers, *self.reclaimers):
            child.end()
        self.servers.close()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
