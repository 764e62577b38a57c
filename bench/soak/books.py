"""The books of a soak: is anything lost, doubled, left undone?

What a failover took back is no violation where Redis may do so: it acknowledges before the replica has a write. So a claim, a
cancellation or a rerun may be undone where a replica took over at that time; these are counted apart. A submission that a replica
confirmed may not.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.soak.load import Record
from bench.soak.world import Execution
from redisflow import Client
from redisflow.backend.redis.verify import Verifier


@dataclass
class Findings:
    """What is wrong, in words, and what was counted.

    Attributes:
        undone: what failovers took back, by kind.
    """

    problems: list[str]
    runs: int = 0
    steps: int = 0
    executions: int = 0
    statuses: Mapping[str, int] = field(default_factory=dict)
    undone: Counter[str] = field(default_factory=Counter)
    verify_s: float = 0.0


class Books:
    """Compares what was recorded with what is there.

    Args:
        client: opened.
        record: what was acknowledged.
        executions: the ledger.
        near_failover: whether a replica took over at about a time.
    """

    def __init__(
        self, client: Client, record: Record, executions: list[Execution], near_failover: Callable[[float], bool]
    ) -> None:
        self.findings = Findings([])
        self._client = client
        self._record = record
        self._near_failover = near_failover
        self._ledger: dict[tuple[str, str], list[float]] = defaultdict(list)
        for run, step, at in executions:
            self._ledger[run, step].append(at)

    async def judge(self) -> Findings:
        """Everything, once nothing moves any more."""
        findings, record = self.findings, self._record
        before = time.perf_counter()
        async for violation in Verifier(self._client.backend).check():
            findings.problems.append(f"{violation.run_id} {violation.rule}: {violation.message}")
        findings.verify_s = time.perf_counter() - before
        states, _ = await self._client.runs(limit=None)
        known = {state.run_id: state.status for state in states}
        findings.runs, findings.statuses = len(known), Counter(known.values())
        for run_id in record.runs.keys() - known.keys():
            at = [record.reruns[run_id]] if run_id in record.reruns else []
            self._missed(f"{run_id} was acknowledged, and is not there", "reruns", at, 1)
        findings.problems += [f"{key!r} stands for two runs" for key in record.broken_keys]
        for run_id, at_cancel in record.cancelled.items():
            if known.get(run_id) != "cancelled":
                self._missed(f"{run_id} was cancelled, and is {known.get(run_id)}", "cancellations", [at_cancel], 1)
        findings.executions = sum(map(len, self._ledger.values()))
        for run_id in known:
            await self._judge_effects(run_id)
        for (run_id, step), times in self._ledger.items():
            self._missed(f"{step} of {run_id} was executed, and is in no history", "executions", times, len(times))
        return findings

    def _missed(self, problem: str, kind: str, times: list[float], count: int) -> None:
        """So many acknowledged things are not there; a failover near enough of these times explains it."""
        if sum(map(self._near_failover, times)) >= count:
            self.findings.undone[kind] += count
        else:
            self.findings.problems.append(problem)

    async def _judge_effects(self, run_id: str) -> None:
        """Each completed step was executed at least once, and no step more often than it was started."""
        events = await self._client.backend.load_wire_events(run_id)
        copied = any(event["type"] == "WorkflowRerunFromStep" for event in events)
        first = int(events[0]["timestampUs"])
        own = [event for event in events if not copied or event["timestampUs"] >= first]
        started = Counter(event["stepId"] for event in own if event["type"] == "StepStarted")
        completed = {event["stepId"] for event in own if event["type"] == "StepCompleted"}
        self.findings.steps += len(completed)
        for step in {*started, *completed}:
            times = self._ledger.pop((run_id, step), [])
            problem = f"{step} of {run_id}: {started[step]} starts, {len(times)} executions"
            if step in completed and not times:
                self.findings.problems.append(problem)
            elif len(times) > started[step]:
                self._missed(problem, "executions", times, len(times) - started[step])
