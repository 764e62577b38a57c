"""Figures: the rules that no worked case shows, and the queries that group errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from redisflow.model import analytics
from redisflow.model.analytics import QueueDepth, SummaryCounter, Window, feed
from redisflow.model.errors import InvalidArgument
from redisflow.model.events import (
    AnyEvent,
    ErrorFingerprints,
    LogEntry,
    StepCompleted,
    StepError,
    StepFailed,
    StepReclaimed,
    StepRetrying,
    StepScheduled,
    StepStarted,
    WorkflowCompleted,
)
from redisflow.model.fingerprints import GROUPINGS
from tests.strategies import histories

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "analytics.schema.json").read_text())
IDLE = QueueDepth(pending_runs=0, running_runs=0, scheduled_steps=0, running_steps=0)


def ids(at: int, run_id: str = "r", step_id: str = "s") -> dict[str, Any]:
    return {
        "event_id": str(at),
        "timestamp_us": at,
        "workflow_slug": "checkout",
        "run_id": run_id,
        "step_id": step_id,
    }


def completed(at: int, attempt: int = 1, **where: str) -> StepCompleted:
    return StepCompleted(**ids(at, **where), output="1", duration_us=at, attempt_number=attempt, export_output=False)


def failed(
    at: int,
    attempt: int = 1,
    *,
    message: str = "no",
    name: str | None = "ValueError",
    stack: str | None = None,
    terminal: bool = True,
    exact: str = "e",
    **where: str,
) -> StepFailed:
    return StepFailed(
        **ids(at, **where),
        error=StepError(message=message, name=name, stack=stack),
        error_fingerprints=ErrorFingerprints(
            name_hash="n",
            message_hash="m",
            stack_exact_hash=exact,
            stack_normalized_hash="norm",
            stack_portable_hash="port",
        ),
        duration_us=at,
        attempt_number=attempt,
        terminal=terminal,
        failure_reason="execution-error",
    )


def retrying(at: int, **where: str) -> StepRetrying:
    return StepRetrying(**ids(at, **where), attempt_number=1, next_attempt=2, error=StepError(message="no"))


def scheduled(at: int, available: int, attempt: int = 1) -> StepScheduled:
    return StepScheduled(**ids(at), available_at_us=available, reason="initial", attempt_number=attempt)


def started(at: int, attempt: int = 1) -> StepStarted:
    return StepStarted(**ids(at), worker_id="w", dependencies=(), attempt_number=attempt)


def test_percentiles_take_the_item_at_the_floor() -> None:
    assert analytics.percentile([], 0.5) == 0
    assert analytics.percentile([1, 2], 0.5) == 2
    assert analytics.percentile(list(range(100)), 0.95) == 95
    assert analytics.percentile([7], 1.0) == 7
    spread = analytics.step_duration([completed(3), completed(1), failed(2, terminal=False)])
    assert (spread.count, spread.min_us, spread.max_us, spread.median_us, spread.average_us) == (
        3,
        1,
        3,
        2,
        2,
    )


def test_latency_pairs_the_last_of_both_in_either_order() -> None:
    events = [
        started(100),
        scheduled(1, available=40),
        scheduled(2, available=60),
        started(10, attempt=2),
        scheduled(3, available=20, attempt=2),
        started(5, attempt=3),
        scheduled(4, available=5, attempt=4),
        started(5, attempt=4),
    ]
    latency = analytics.scheduling_latency(events)
    assert (latency.count, latency.min_us, latency.max_us) == (2, 0, 40)


def test_throughput_of_no_time_has_no_rate() -> None:
    for length in (0, -5):
        rates = analytics.throughput([completed(1)], length)
        assert (rates.time_range_us, rates.steps_completed, rates.steps_per_hour) == (length, 1, 0)
    assert analytics.throughput([completed(1)], 1_800_000_000).steps_per_hour == 2


def test_retries_count_only_ends_after_the_first_retry() -> None:
    early = [completed(1, 2), retrying(2)]
    assert analytics.retry_analysis(early).retries_succeeded == 0
    events = [
        failed(1, terminal=False, step_id="a"),
        retrying(2, step_id="a"),
        failed(3, 2, step_id="a"),
        completed(4, 3, step_id="a"),
        retrying(5, step_id="b"),
        completed(6, 1, step_id="b"),
        failed(7, 9, terminal=False, step_id="c"),
        retrying(8, step_id="c"),
        failed(9, 2, step_id="c"),
        completed(10, 5, step_id="never"),
    ]
    found = analytics.retry_analysis(events)
    assert (found.total_retries, found.retries_succeeded, found.retries_failed) == (3, 1, 1)
    assert (found.average_attempts_before_success, found.average_attempts_before_failure) == (3, 9)
    assert found.retry_effectiveness_rate == 50


def test_no_retries_is_all_zero() -> None:
    assert set(analytics.retry_analysis([completed(1, 2), failed(2)]).to_wire().values()) == {0}


def test_errors_group_by_message_and_at_most_ten_are_listed() -> None:
    events = [failed(at, message=str(at % 12)) for at in range(40, 0, -1)]
    found = analytics.error_analysis(events)
    assert (found.total_failures, found.unique_errors, len(found.most_common_errors)) == (40, 12, 10)
    first = found.most_common_errors[0]
    assert (first.message, first.count, first.last_occurrence) == ("4", 4, 40)
    assert (found.first_failure, found.last_failure) == (1, 40)
    empty = analytics.error_analysis([]).to_wire()
    assert empty == {"totalFailures": 0, "uniqueErrors": 0, "breakdownByReason": [], "mostCommonErrors": []}


def test_unstable_workers_rank_by_count_then_first_seen() -> None:
    def reclaimed(at: int, worker: str) -> StepReclaimed:
        times = {"last_heartbeat_us": 0, "stale_threshold_us": 1, "stale_duration_us": at}
        return StepReclaimed(**ids(at), original_worker_id=worker, reclaimed_by="x", attempt_number=1, **times)

    found = analytics.worker_stability([reclaimed(1, "b"), reclaimed(2, "a"), reclaimed(6, "c"), reclaimed(7, "c")])
    assert [worker.worker_id for worker in found.most_unstable_workers] == ["c", "b", "a"]
    assert (found.average_stale_time_us, found.steps_reclaimed_by_worker) == (4, {"b": 1, "a": 1, "c": 2})


def test_a_window_is_inclusive_and_a_step_leaves_out_run_events() -> None:
    window = Window(10, 20, workflow_slug="checkout")
    assert [window.holds(completed(at)) for at in (9, 10, 20, 21)] == [False, True, True, False]
    run_end = WorkflowCompleted(
        event_id="1",
        timestamp_us=15,
        workflow_slug="checkout",
        run_id="r",
        workflow_attempt_number=1,
        output="{}",
        duration_us=1,
        total_steps=1,
    )
    assert window.holds(run_end)
    assert not window._replace(step_id="s").holds(run_end)
    assert window._replace(step_id="s").holds(completed(15))
    assert not window._replace(step_id="t").holds(completed(15))
    assert not window._replace(run_ids=frozenset({"other"})).holds(completed(15))
    assert not window._replace(workflow_slug="other").holds(completed(15))


def test_errors_list_uses_stored_hashes_and_describes_the_first() -> None:
    events = [
        failed(5, message="late", exact="e2", run_id="r1"),
        failed(9, message="first", name="", exact="e1", run_id="r1"),
        failed(2, message="second", stack="trace", exact="e1", run_id="r1", terminal=False),
        failed(7, message="third", exact="e3", run_id="r2"),
    ]
    found = analytics.errors_list(events)
    assert [group.fingerprint for group in found.errors] == ["n:m:e1", "n:m:e2", "n:m:e3"]
    assert found.total == 3
    assert found.errors[0].to_wire() == {
        "fingerprint": "n:m:e1",
        "errorMessage": "first",
        "errorName": "Error",
        "sampleStack": "",
        "count": 2,
        "affectedRuns": 1,
        "firstSeen": 2,
        "lastSeen": 9,
    }
    page = analytics.errors_list(events, limit=1, offset=1)
    assert ([group.fingerprint for group in page.errors], page.total) == (["n:m:e2"], 3)
    assert analytics.errors_list(events, "portable").errors[0].count == 4


def test_error_detail_describes_the_newest() -> None:
    events = [
        failed(5, message="newest", stack="trace", run_id="r2"),
        failed(3, message="old", run_id="r1"),
        failed(4, message="middle", name=None, run_id="r1"),
        failed(9, message="other", exact="x"),
    ]
    found = analytics.error_detail(events, "n:m:e", limit=2)
    assert (found.error_message, found.sample_stack, found.total_count, found.total) == (
        "newest",
        "trace",
        3,
        3,
    )
    assert (found.affected_runs, found.first_seen, found.last_seen) == (2, 3, 5)
    assert [seen.timestamp_us for seen in found.occurrences] == [5, 4]
    assert [seen.timestamp_us for seen in analytics.error_detail(events, "n:m:e", offset=2).occurrences] == [3]


def test_error_detail_of_nothing_is_zeros() -> None:
    found = analytics.error_detail([failed(1)], "a:b:c", "normalized").to_wire()
    assert found.pop("fingerprint") == "a:b:c"
    assert found.pop("occurrences") == []
    assert set(found.values()) == {0, ""}


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="fingerprint"):
        analytics.error_detail([], "a:b")
    with pytest.raises(InvalidArgument, match="grouping"):
        analytics.errors_list([], "fuzzy")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="grouping"):
        analytics.error_detail([], "a:b:c", "fuzzy")  # type: ignore[arg-type]


@settings(deadline=None)
@given(history=histories())
def test_any_history_gives_figures_that_fit_the_schema(history: list[AnyEvent]) -> None:
    summary = feed(SummaryCounter(), history).result(Window(0, 10_000, "checkout", "charge"), IDLE)
    Draft202012Validator(SCHEMA["AnalyticsSummary"]).validate(summary.to_wire())
    assert summary.time_range.duration_us == 10_000
    assert "workflowSlug" not in summary.retry_analysis.to_wire()
    failures = summary.error_analysis.total_failures
    for grouping in GROUPINGS:
        groups = analytics.errors_list(history, grouping, limit=1000)
        assert sum(group.count for group in groups.errors) == failures
        for group in groups.errors:
            detail = analytics.error_detail(history, group.fingerprint, grouping)
            assert (detail.total_count, detail.affected_runs) == (group.count, group.affected_runs)


def test_logs_count_for_nothing() -> None:
    log = LogEntry(**ids(1), stream="stdout", message="x", attempt_number=1)
    window = Window(0, 10)
    assert feed(SummaryCounter(), [log]).result(window, IDLE) == SummaryCounter().result(window, IDLE)
