"""Writes tables and plots of the last results into the documents, between markers, so that the prose around them stays.

A block is what stands between `<!-- bench:NAME -->` and `<!-- /bench -->`; one whose results are missing is left as it is. The
results themselves go beside, to docs/benchmarks/, so that a figure in the text can be traced.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Callable, Iterable, Sequence

from bench import plots
from bench.peers import PEERS, ROOT
from bench.results import BASE, FOLDER, Results, figure, goal_text, load, verdict
from bench.suites import SUITES

DOCS = ROOT.parent / "docs"
IMAGES = DOCS / "benchmarks"
FILES = (DOCS / "performance.md", ROOT.parent / "README.md")
_BLOCK = re.compile(r"(<!-- bench:([\w-]+) -->\n).*?(<!-- /bench -->)", re.DOTALL)
Found = dict[str, Results]


def write() -> None:
    """Write everything for which there are results."""
    found = {name: load(path) for name in SUITES if (path := FOLDER / f"{name}.json").exists()}
    if not found:
        raise SystemExit("no results in bench/results/: run `make bench-compare` first")
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name in found:
        shutil.copy(FOLDER / f"{name}.json", IMAGES)
    _draw(found)
    for file in FILES:
        text = _BLOCK.sub(
            lambda block: block[1] + (_block(block[2], found) or _inside(block[0])) + block[3], file.read_text()
        )
        file.write_text(text)
        print(f"written: {file.relative_to(ROOT.parent)}")


def _inside(block: str) -> str:
    return block.partition("\n")[2].rpartition("<!--")[0]


def _draw(found: Found) -> None:
    if "drain" in found:
        plots.bars(found["drain"], "rate", "No-op jobs a second, one worker process", "jobs/s", IMAGES, "drain")
    if "chain" in found:
        plots.bars(found["chain"], "rate", "Steps a second in workflows of three steps", "steps/s", IMAGES, "chain")
    if "latency" in found:
        plots.spans(found["latency"], "From submit to the first line of the job, idle worker", IMAGES, "latency")
    if "growth" in found:
        plots.growth(found["growth"], IMAGES, "growth")


def _block(name: str, found: Found) -> str | None:
    """The text of a block; None where results are missing."""
    special: dict[str, tuple[Sequence[str], Callable[[Found], str]]] = {
        "choice": (("drain", "latency"), _choice), "goals": ((), _goals), "machine": ((), _machine), "peers": ((), _peers),
    }  # fmt: skip
    needs, make = special.get(name, ((name,), lambda all_of_them: _suite(all_of_them[name])))
    return None if any(need not in found for need in needs) else make(found)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a heading that starts with `>` is of a column of figures."""
    lines = [
        [column.removeprefix(">") for column in head],
        ["---:" if column[0] == ">" else "---" for column in head],
        *rows,
    ]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    middle = figure(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({figure(min(values))} to {figure(max(values))})"


def _suite(results: Results) -> str:
    """A suite's table: a row a peer, or a row a measure where redisflow is alone."""
    suite, measures = SUITES[results.suite], results.measures()
    note = "".join(
        f"Left out: {plots.name_of(peer)} ({why.splitlines()[0]}).\n\n" for peer, why in results.missing.items()
    )
    if list(results.versions) == ["redisflow"]:
        rows = [
            [measure, _spread(values["redisflow"]), suite.units[measure], _reached(results, measure)]
            for measure, values in measures.items()
        ]
        return _table(("measure", ">median (least to greatest)", "unit", "goal"), rows) + note
    measures = {measure: values for measure, values in measures.items() if list(values) != ["redisflow"]}
    first = next(iter(measures))
    peers = _best_first(results, first)
    rows = []
    for peer in peers:
        ratio = results.ratio(first, peer)
        cells = [_spread(measures[m][peer]) if measures[m].get(peer) else "" for m in measures]
        name = f"**{peer}**" if peer == "redisflow" else plots.name_of(peer)
        rows.append(
            [f"{name} {results.versions[peer]}", *cells, f"{ratio:.2f}" if ratio else "", f"{results.counts[peer]:,}"]
        )
    heads = [f">{measure}, {suite.units[measure]}" for measure in measures]
    goals = "".join(
        f"- {measure}: {_reached(results, measure)}\n" for measure in measures if _reached(results, measure)
    )
    goals = f"To reach:\n\n{goals}\n" if goals else ""
    return _table(("queue", *heads, f">{first} x {plots.name_of(BASE)}", ">jobs"), rows) + goals + note


def _best_first(results: Results, measure: str) -> list[str]:
    goal = SUITES[results.suite].goals.get(measure)
    sign = 1 if goal is not None and goal.side == "most" else -1
    by_peer = {peer: statistics.median(values) for peer, values in results.values[measure].items() if values}
    return sorted(by_peer, key=lambda peer: sign * by_peer[peer])


def _reached(results: Results, measure: str) -> str:
    """A goal, what was got, and whether that is enough; "" where there is none."""
    goal = SUITES[results.suite].goals.get(measure)
    reached = verdict(results, measure, goal)
    if goal is None or reached is None:
        return ""
    got = results.ratio(measure, "redisflow", goal.against) if goal.against else None
    shown = f"{got:.2f} x" if got is not None else figure(statistics.median(results.values[measure]["redisflow"]))
    return f"{goal_text(goal)}: {shown}, {'reached' if reached else '**missed**'}"


def _goals(found: Found) -> str:
    rows = []
    for results in found.values():
        for measure in SUITES[results.suite].goals:
            if text := _reached(results, measure):
                wanted, _, got = text.rpartition(": ")
                rows.append([SUITES[results.suite].title, measure, wanted, *got.rsplit(", ", 1)])
    return _table(("suite", "measure", "goal", ">measured", "verdict"), rows)


def _machine(found: Found) -> str:
    results = found.get("drain") or next(iter(found.values()))
    facts = results.machine
    return "\n" + "".join(f"- {name}: {value}\n" for name, value in facts.items()) + "\n"


def _peers(_: Found) -> str:
    rows = [[plots.name_of(peer.name), peer.settings, *vars(peer.guarantees).values()] for peer in PEERS]
    return _table(("queue", "setting", "a job is taken off", "results", "retries", "events"), rows)


def _choice(found: Found) -> str:
    """The one table for a person who chooses: rates, latency, and what they buy."""
    drain, latency, rows = found["drain"], found["latency"], []
    known = {peer.name: peer for peer in PEERS}

    def median(results: Results | None, measure: str, peer: str) -> str:
        values = results.values.get(measure, {}).get(peer) if results else None
        return figure(statistics.median(values)) if values else ""

    for peer in _best_first(drain, "rate"):
        gives = known[peer].guarantees
        name = f"**{peer}**" if peer == "redisflow" else plots.name_of(peer)
        rows.append([
            name, median(drain, "rate", peer), median(found.get("chain"), "rate", peer), median(latency, "p50", peer),
            median(latency, "p99", peer), gives.ack, gives.events,
        ])  # fmt: skip
    heads = (
        "queue",
        ">no-op jobs/s",
        ">steps/s in chains",
        ">pick-up p50, ms",
        ">p99, ms",
        "a job is taken off",
        "events kept",
    )
    facts = drain.machine
    where = (
        f"{facts['cores']} cores of {facts['processor']}, {facts['server']}, one worker process each, {facts['date']}."
    )
    return _table(heads, rows) + f"{where}\n\n"
