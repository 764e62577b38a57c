"""The queues that are compared: what to install, how each is set for no-op jobs, and what each guarantees.

Each lives in an environment of its own under `bench/.peers/`, made by `make bench-peers`; one that cannot be installed is told and
left out. The settings are those that the peer's documentation gives for many small jobs; the words in `guarantees` say what its
figures buy.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent
HOMES = ROOT / ".peers"


@dataclass(frozen=True)
class Guarantees:
    """What a queue does for a job.

    Attributes:
        ack: when a job is taken off the queue, so what a crash of the worker loses.
        results: whether results are kept, here and by default.
        retries: whether a failed job runs again by itself.
        events: what is recorded of a job's way.
    """

    ack: str
    results: str
    retries: str
    events: str


@dataclass(frozen=True)
class Peer:
    """A queue.

    Attributes:
        name: as in the tables, and as `--peers` takes it.
        packages: what to install; the first gives the version.
        settings: its setting for no-op jobs.
        guarantees: what it does for a job.
        node: it is a package of Node.
        chains: it can run workflows of three steps.
        redis: its jobs are kept by the server that is measured.
        limit: most jobs a repetition; one that has a limit is slow, and repeated at most three times.
    """

    name: str
    packages: tuple[str, ...]
    settings: str
    guarantees: Guarantees
    node: bool = False
    chains: bool = False
    redis: bool = True
    limit: int | None = 3_000

    @property
    def home(self) -> Path:
        """Its environment."""
        return HOMES / self.name

    @property
    def own(self) -> bool:
        """It is redisflow itself, which runs in this environment."""
        return self.name == "redisflow"

    @property
    def environment(self) -> dict[str, str]:
        """Variables of its program."""
        return {"BENCH_MODULES": str(self.home / "node_modules" / "bullmq"), "PYTHONDONTWRITEBYTECODE": "1"}

    def command(self, word: str) -> list[str]:
        """How to call its program."""
        stem = f"{self.name.replace('-', '_')}_driver"
        if self.node:
            return ["node", str(ROOT / "drivers" / f"{stem}.mjs"), word]
        python = sys.executable if self.own else str(self.home / "bin" / "python")
        return [python, str(ROOT / "drivers" / f"{stem}.py"), word]

    @property
    def installed(self) -> bool:
        """Its environment is complete."""
        return self.own or (self.home / "installed").exists()

    @cache  # noqa: B019 — a handful of frozen objects
    def version(self) -> str:
        """Version of its first package."""
        name = self.packages[0].partition("[")[0]
        if self.node:
            return str(json.loads((self.home / "node_modules" / name / "package.json").read_text())["version"])
        program = f"from importlib.metadata import version; print(version({name!r}))"
        done = subprocess.run([self.command("")[0], "-c", program], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def install(self) -> None:
        """Make its environment.

        Raises:
            OSError, subprocess.CalledProcessError: it cannot be installed.
        """
        if self.installed:
            return
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir(parents=True)
        if self.node:
            (self.home / "package.json").write_text('{"private": true}\n')
            _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *self.packages, cwd=self.home)
        else:
            _run(sys.executable, "-m", "venv", str(self.home), cwd=HOMES)
            _run("bin/python", "-m", "pip", "install", "--disable-pip-version-check", *self.packages, cwd=self.home)
        (self.home / "installed").touch()


def _run(*command: str, cwd: Path) -> None:
    program = str(cwd / command[0]) if "/" in command[0] and not command[0].startswith("/") else command[0]
    done = subprocess.run([program, *command[1:]], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        (cwd / "install.log").write_text(done.stdout + done.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)


PEERS = [
    Peer(
        "redisflow", ("redisflow",), "defaults: concurrency 100; submit_many", chains=True, limit=None,
        guarantees=Guarantees("after the end, fenced by a lease", "kept", "by policy", "all, in a stream a run"),
    ),
    Peer(
        "bullmq", ("bullmq", "ioredis"), "addBulk of 1,000; one Worker, concurrency 200", node=True, chains=True, limit=None,
        guarantees=Guarantees("after the end, by a lock", "kept", "by option", "a stream of the last 10,000"),
    ),
    Peer(
        "huey", ("huey", "redis", "hiredis"), "one consumer thread",
        guarantees=Guarantees("when taken: a crash loses it", "kept, None is not", "by option", "none"),
    ),
    Peer(
        "arq", ("arq", "hiredis"), "max_jobs 100",
        guarantees=Guarantees("after the end", "kept for an hour", "on crash and by Retry", "none"),
    ),
    Peer(
        "saq", ("saq[redis]", "hiredis", "typing-extensions"), "concurrency 100",
        guarantees=Guarantees("after the end, swept", "kept for 10 minutes", "by option", "none"),
    ),
    Peer(
        "taskiq", ("taskiq", "taskiq-redis", "hiredis"), "stream broker, result backend, 100 tasks at once",
        guarantees=Guarantees("after the result is saved", "kept for an hour", "by middleware", "none"),
    ),
    Peer(
        "streaq", ("streaq", "hiredis"), "enqueue_many of 1,000; concurrency 100",
        guarantees=Guarantees("after the end", "kept for 5 minutes", "by option", "none"),
    ),
    Peer(
        "rq", ("rq", "hiredis"), "enqueue_many of 1,000; SimpleWorker (no fork a job)", limit=1_000,
        guarantees=Guarantees("after the end", "kept for 500 s", "by option", "none"),
    ),
    Peer(
        "celery", ("celery[redis]", "hiredis"), "8 threads, prefetch 64, no gossip, ignore_result", chains=True,
        guarantees=Guarantees("before the start, by default", "none here, as advised", "by option", "none here"),
    ),
    Peer(
        "dramatiq", ("dramatiq[redis]", "hiredis"), "8 threads", chains=True,
        guarantees=Guarantees("after the end", "none by default", "by default", "none"),
    ),
    Peer(
        "docket", ("pydocket", "hiredis"), "add_many of 1,000; concurrency 50, check interval 1 ms",
        guarantees=Guarantees("after the end", "kept for 15 minutes", "by option", "none kept"),
    ),
    Peer(
        "bullmq-python", ("bullmq", "hiredis"), "addBulk of 1,000; concurrency 100",
        guarantees=Guarantees("after the end, by a lock", "kept", "by option", "a stream of the last 10,000"),
    ),
    Peer(
        "dbos", ("dbos",), "SQLite; queue polled every 10 ms", chains=True, redis=False, limit=300,
        guarantees=Guarantees("after the end, checkpoint a step", "kept", "by option", "a row a step"),
    ),
]  # fmt: skip


def find_peers(names: Iterable[str]) -> list[Peer]:
    """Peers by name, in the order of the table; all for no names.

    Raises:
        SystemExit: a name is none of a peer.
    """
    wanted = set(names)
    if unknown := wanted - {peer.name for peer in PEERS}:
        known = ", ".join(peer.name for peer in PEERS)
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are {known}")
    return [peer for peer in PEERS if not wanted or peer.name in wanted]


def install(names: Iterable[str]) -> None:
    """Install peers, and tell which could not be."""
    for peer in find_peers(names):
        try:
            peer.install()
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{peer.name}: missing ({error}; see {peer.home.relative_to(ROOT.parent)}/install.log)")
        else:
            print(f"{peer.name} {peer.version()}")
