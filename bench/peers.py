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
        slow: measured with fewer jobs.
        program: stem of its file in `drivers/`, where that is not its name.
    """

    name: str
    packages: tuple[str, ...]
    settings: str
    guarantees: Guarantees
    node: bool = False
    chains: bool = False
    slow: bool = True
    program: str = ""

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
        stem = f"{self.program or self.name}_driver"
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
        "redisflow", ("redisflow",), "defaults: concurrency 100; submit_many", chains=True, slow=False,
        guarantees=Guarantees("after the end, fenced by a lease", "kept", "by policy", "all, in a stream a run"),
    ),
    Peer(
        "bullmq", ("bullmq", "ioredis"), "addBulk of 1,000; one Worker, concurrency 200", node=True, chains=True, slow=False,
        guarantees=Guarantees("after the end, by a lock", "kept", "by option", "a stream of the last 10,000"),
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
