"""Hold the folds and figures to worked cases: `python tests/check_vectors.py FILE [--part states|analytics]`.

A case is one JSON line with `events` and what they must give (`tests/data/RULES.md` says why). Every mismatch
is printed with its case and field path; the last line counts the cases that passed and failed, and the exit
code is 1 where one failed. Values are compared as JSON, with absent the same as null; the wording of
`stateChanges[].message` is free.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

if find_spec("redisflow") is None:  # run from anywhere, without an install
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from redisflow.model import analytics
from redisflow.model.events import AnyEvent, WireModel, parse_event
from redisflow.model.projections import project_runs, project_steps

HOUR_US = 3_600_000_000
PARTS = ("states", "analytics")


def read_cases(path: Path) -> list[dict[str, Any]]:
    """The cases of a file, one JSON object a line."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


def states_of(events: list[AnyEvent]) -> dict[str, Any]:
    """What the folds give, in the form of a case."""
    steps = [
        {
            "runId": run_id,
            "stepId": step_id,
            "state": step.state.to_wire(),
            "record": step.record.to_wire(),
            "logs": [log.to_wire() for log in step.logs],
            "attempts": [attempt.to_wire() for attempt in step.attempts],
            "currentAttempt": step.current_attempt,
        }
        for (run_id, step_id), step in project_steps(events).items()
    ]
    runs = [
        {"runId": run_id, "state": run.state.to_wire() if run.state else None, "versionId": run.version_id}
        for run_id, run in project_runs(events).items()
    ]
    return {"steps": steps, "runs": runs}


def analytics_of(events: list[AnyEvent]) -> dict[str, Any]:
    """What the figures are, in the form of a case; throughput over one hour."""
    figures: dict[str, WireModel] = {
        "errorAnalysis": analytics.error_analysis(events),
        "retryAnalysis": analytics.retry_analysis(events),
        "schedulingLatency": analytics.scheduling_latency(events),
        "stepDuration": analytics.step_duration(events),
        "workflowDuration": analytics.workflow_duration(events),
        "workerStability": analytics.worker_stability(events),
        "throughput": analytics.throughput(events, HOUR_US),
        "successRate": analytics.success_rate(events),
    }
    return {name: figure.to_wire() for name, figure in figures.items()}


def mismatches(expected: Any, actual: Any, path: str = "") -> Iterator[str]:
    """One line for each value that differs, with the path of its field."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        # Keys in order of appearance, so that two runs print the same.
        for key in dict.fromkeys([*expected, *actual]):
            if key == "message" and "stateChanges[" in path:
                continue
            yield from mismatches(expected.get(key), actual.get(key), f"{path}.{key}" if path else key)
    elif isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            yield f"{path}: expected {len(expected)} items, got {len(actual)}"
        for index, (left, right) in enumerate(zip(expected, actual, strict=False)):
            yield from mismatches(left, right, f"{path}[{index}]")
    elif isinstance(expected, bool) != isinstance(actual, bool) or expected != actual:
        yield f"{path}: expected {_shown(expected)}, got {_shown(actual)}"


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def check_case(case: dict[str, Any], parts: tuple[str, ...] = PARTS) -> list[str]:
    """The mismatches of a case; an exception is one."""
    problems: list[str] = []
    try:
        events = [parse_event(event) for event in case["events"]]
        actual: dict[str, Any] = {}
        if "states" in parts:
            actual |= states_of(events)
        if "analytics" in parts:
            actual |= analytics_of(events)
    except Exception as error:  # noqa: BLE001  # one broken case must not hide the others
        return [f"{type(error).__name__}: {error}"]
    expected = case["expected"]
    for name, value in actual.items():
        if name in expected:
            problems += mismatches(expected[name], value, name)
    return problems


def main(argv: list[str] | None = None) -> int:
    """Check a file; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("file", type=Path, help="cases, one JSON object a line")
    parser.add_argument("--part", choices=PARTS, help="only this half of each case")
    options = parser.parse_args(argv)
    parts = (options.part,) if options.part else PARTS
    failed = 0
    cases = read_cases(options.file)
    for number, case in enumerate(cases, 1):
        problems = check_case(case, parts)
        failed += bool(problems)
        for problem in problems:
            print(f"{case.get('name', f'line {number}')}: {problem}")
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
