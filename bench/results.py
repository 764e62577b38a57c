"""Results: kept as JSON with the machine and the versions, shown as a table with the goals beside."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.suites import SUITES, Goal
from bench.suites.base import Suite

FOLDER = Path(__file__).parent / "results"
BASE = "bullmq"


@dataclass
class Results:
    """One call of one suite.

    Attributes:
        suite: its name.
        machine: what it ran on.
        counts: jobs a repetition, by peer.
        versions: of each peer.
        values: by measure and peer, one a repetition.
        missing: peers that could not be measured, and why.
    """

    suite: str
    machine: dict[str, str]
    counts: dict[str, int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def add(self, peer: str, found: Mapping[str, float]) -> None:
        """Take up one repetition of a peer."""
        for measure, value in found.items():
            self.values.setdefault(measure, {}).setdefault(peer, []).append(float(f"{value:.6g}"))

    def drop(self, peer: str, why: str) -> None:
        """Leave a peer out that failed."""
        self.missing[peer] = why
        for by_peer in self.values.values():
            by_peer.pop(peer, None)

    def save(self) -> Path:
        """Write `bench/results/<suite>.json`."""
        FOLDER.mkdir(exist_ok=True)
        path = FOLDER / f"{self.suite}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")
        return path

    def measures(self) -> dict[str, dict[str, list[float]]]:
        """The measures that the suite shows, with units, in its order."""
        units = SUITES[self.suite].units
        known = [measure for measure in units if measure in self.values]
        return {measure: self.values[measure] for measure in known or self.values}

    def ratio(self, measure: str, peer: str, against: str = BASE) -> float | None:
        """Median of a peer over the median of another; None where one is missing."""
        by_peer = self.values.get(measure, {})
        if not by_peer.get(peer) or not by_peer.get(against):
            return None
        return statistics.median(by_peer[peer]) / statistics.median(by_peer[against])


def load(path: Path) -> Results:
    """Results that were saved."""
    return Results(**json.loads(path.read_text()))


def machine(server: str) -> dict[str, str]:
    """What the figures were measured on."""
    done = subprocess.run([server, "--version"], capture_output=True, text=True, check=True)
    node = _version("node", "--version")
    processor = platform.processor() or platform.machine()
    if (cpus := Path("/proc/cpuinfo")).exists():
        names = [
            line.partition(":")[2].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return {
        "processor": processor, "cores": str(os.cpu_count()), "system": f"{platform.system()} {platform.machine()}",
        "server": " ".join(done.stdout.split()[:3]).removesuffix(" server"), "python": platform.python_version(), "node": node,
        "date": datetime.now(UTC).date().isoformat(), "load average before": f"{os.getloadavg()[0]:.1f}",
    }  # fmt: skip


def _version(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"


def figure(value: float) -> str:
    """A figure with as many digits as it deserves."""
    return f"{value:,.{2 if abs(value) < 10 else 1 if abs(value) < 100 else 0}f}"


def goal_text(goal: Goal | None) -> str:
    """A goal for a person: `≥ 1.4 x bullmq`."""
    if goal is None:
        return ""
    sign = "≥" if goal.side == "least" else "≤"
    return f"{sign} {goal.value:g} x {goal.against}" if goal.against else f"{sign} {goal.value:,g}"


def verdict(results: Results, measure: str, goal: Goal | None) -> bool | None:
    """Whether redisflow reaches a goal; None where it cannot be said."""
    own = results.values.get(measure, {}).get("redisflow")
    if goal is None or not own:
        return None
    got = results.ratio(measure, "redisflow", goal.against) if goal.against else statistics.median(own)
    return None if got is None else (got >= goal.value if goal.side == "least" else got <= goal.value)


def show(results: Results) -> None:
    """Print a table."""
    suite: Suite = SUITES[results.suite]
    where = f"{results.machine['server']} · {results.machine['cores']} cores · {results.machine['system']}"
    table = Table(title=f"{suite.title} · {where}")
    for heading in ("measure", "peer", ">median", ">least", ">greatest", "unit", f">x {BASE}", "goal"):
        table.add_column(heading.removeprefix(">"), justify="right" if heading[0] == ">" else "left")
    for measure, by_peer in results.measures().items():
        for peer, values in by_peer.items():
            ratio, goal = results.ratio(measure, peer), suite.goals.get(measure) if peer == "redisflow" else None
            reached = verdict(results, measure, goal)
            mark = {True: " [green]reached[/]", False: " [red]missed[/]", None: ""}[reached]
            table.add_row(
                measure, f"{peer} {results.versions[peer]}", figure(statistics.median(values)), figure(min(values)),
                figure(max(values)), suite.units[measure], "" if ratio is None else f"{ratio:.2f}", goal_text(goal) + mark,
            )  # fmt: skip
        if len(results.versions) > 1:
            table.add_section()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)
    for peer, why in results.missing.items():
        console.print(f"{peer}: left out: {why}", markup=False)
