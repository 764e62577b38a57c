"""Stretches of time: contiguous, none negative or empty, and adding up to the whole."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client
from redisflow.model.events import parse_event
from redisflow.model.timeline import Span, run_spans
from tests.web.conftest import ended

CASES = Path(__file__).parent.parent / "data" / "projections.jsonl"


def event(kind: str, at: int, step: str | None = "a", **fields: Any) -> Any:
    wire = {"type": kind, "eventId": str(at), "timestampUs": at, "workflowSlug": "w", "runId": "r",
            "category": "step" if step else "workflow", **fields}  # fmt: skip
    return parse_event({**wire, "stepId": step} if step else wire)


def scheduled(at: int, available: int, attempt: int = 1, reason: str = "initial") -> Any:
    return event("StepScheduled", at, availableAtUs=available, reason=reason, attemptNumber=attempt)


def started(at: int, attempt: int = 1) -> Any:
    return event("StepStarted", at, workerId="w1", dependencies=[], attemptNumber=attempt)


def submitted(at: int = 100) -> Any:
    return event("RunSubmitted", at, None, versionId="v", availableAtUs=at, priority=0, hasInputSchema=False)


def failed(at: int, attempt: int, *, terminal: bool) -> Any:
    hashes = dict.fromkeys(
        ("nameHash", "messageHash", "stackExactHash", "stackNormalizedHash", "stackPortableHash"), "0"
    )
    return event("StepFailed", at, error={"message": "no"}, errorFingerprints=hashes, durationUs=1, attemptNumber=attempt,
                 terminal=terminal, failureReason="execution-error")  # fmt: skip


def completed(at: int, attempt: int = 1) -> Any:
    return event("StepCompleted", at, output="1", durationUs=1, attemptNumber=attempt, exportOutput=False)


def kinds(span: Span) -> dict[str, int]:
    return {stretch.kind: stretch.duration_us for stretch in span.stretches}


def check(spans: list[Span]) -> None:
    by_step: dict[str, list[Any]] = {}
    for span in spans:
        by_step.setdefault(span.step_id, []).extend(span.stretches)
    for stretches in by_step.values():
        assert all(stretch.duration_us > 0 for stretch in stretches)
        assert all(one.end_us == other.start_us for one, other in pairwise(stretches))
        if stretches:
            assert sum(s.duration_us for s in stretches) == stretches[-1].end_us - stretches[0].start_us


def test_an_attempt_waits_for_dependencies_its_delay_and_a_worker_and_then_runs() -> None:
    (span,) = run_spans([submitted(), scheduled(130, 150), started(157), completed(200)], now=999)
    assert kinds(span) == {"dependencies": 30, "delay": 20, "worker": 7, "run": 43}
    assert (span.duration_us, span.outcome, span.worker_id) == (100, "completed", "w1")


def test_a_retry_waits_for_its_delay_from_the_failure_on() -> None:
    events = [submitted(), scheduled(100, 100), started(110), failed(120, 1, terminal=False),
              scheduled(121, 171, 2, "retry"), started(180, 2), completed(190, 2)]  # fmt: skip
    first, second = run_spans(events, now=999)
    assert kinds(first) == {"worker": 10, "run": 10}
    assert kinds(second) == {"delay": 51, "worker": 9, "run": 10}
    check([first, second])


def test_a_failed_run_is_stopped_until_its_retry() -> None:
    end = event("WorkflowFailed", 121, None, workflowAttemptNumber=1, error={"message": "no"}, durationUs=1, completedSteps=0,
                failureReason="step-failed")  # fmt: skip
    again = event(
        "WorkflowRetryStarted", 200, None, workflowAttemptNumber=2, previousAttemptNumber=1, retriedSteps=["a"]
    )
    events = [submitted(), scheduled(100, 100), started(110), failed(120, 1, terminal=True), end, again,
              scheduled(201, 201, 2, "retry"), started(205, 2), completed(210, 2)]  # fmt: skip
    spans = run_spans(events, now=999)
    assert kinds(spans[1]) == {"stopped": 80, "delay": 1, "worker": 4, "run": 5}
    check(spans)


def test_what_is_open_is_counted_until_now_and_a_cancelled_run_ends_it() -> None:
    history = [submitted(), scheduled(100, 100), started(110)]
    (live,) = run_spans(history, now=150)
    assert (live.outcome, kinds(live)) == ("running", {"worker": 10, "run": 40})
    cancel = event("WorkflowCancelled", 130, None, workflowAttemptNumber=1, durationUs=30, completedSteps=0)
    (stopped,) = run_spans([*history, cancel], now=150)
    assert (stopped.outcome, kinds(stopped)) == ("stopped", {"worker": 10, "run": 20})


def test_a_released_attempt_is_two_spans() -> None:
    events = [
        submitted(),
        scheduled(100, 100),
        started(110),
        scheduled(120, 125, 1, "retry"),
        started(130),
        completed(140),
    ]
    one, other = run_spans(events, now=999)
    assert [one.outcome, other.outcome] == ["released", "completed"]
    check([one, other])


@pytest.mark.parametrize("line", CASES.read_text().splitlines(), ids=lambda line: json.loads(line).get("name", "case"))
def test_every_known_history_adds_up(line: str) -> None:
    events = sorted(map(parse_event, json.loads(line)["events"]), key=lambda e: (e.timestamp_us, int(e.event_id)))
    now = max((e.timestamp_us for e in events), default=0) + 1000
    check(run_spans(events, now=now))


async def test_a_real_run_adds_up_to_what_it_took(client: Client) -> None:
    run_id = await ended(client, cents=3, flaky=True)
    events = await client.backend.load_events("shop", run_id)
    spans = run_spans(events, now=0)
    check(spans)
    run = await client.status(run_id)
    last = max(s.end_us for span in spans for s in span.stretches)
    assert (
        sum(s.duration_us for span in spans if span.step_id == "ship" for s in span.stretches) == last - run.created_at
    )
    assert [span.outcome for span in spans if span.step_id == "charge"] == ["failed", "completed"]
