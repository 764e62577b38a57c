"""Figures of a backend: the same as the pure functions over the events of its runs, whatever the window."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend, walk
from redisflow.backend.redis.analytics import Analytics
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.types import Submission
from redisflow.codec import pack
from redisflow.model import analytics as figures
from redisflow.model.analytics import SummaryCounter, Window, feed
from redisflow.model.errors import InvalidArgument, ServerUnavailable
from redisflow.model.events import AnyEvent
from redisflow.settings import Settings
from tests.conftest import TestServer, assert_consistent
from tests.flows import (
    CHAIN,
    DIAMOND,
    SECOND,
    claim,
    complete,
    fail,
    fan_out,
    plan,
    reclaim,
    retry,
    scores,
    start,
    step,
    submit,
    travel,
)

HOUR = 3_600_000_000
RETRIED = plan(step("a", retry=retry(attempts=3), slug="retried"), slug="retried")
OTHER = [["n1", "m1", "e1", "o1", "p1"], ["n1", "m1", "e2", "o1", "p1"], ["n2", "m2", "e1", "o2", "p2"]]


class Backend(RedisBackend, Analytics):
    """The backend with its figures."""


@pytest.fixture
def partitions() -> int:
    return 1


@pytest.fixture
async def backend(settings: Settings, partitions: int) -> AsyncIterator[Backend]:
    opened = Backend(settings.model_copy(update={"partitions": partitions}))
    await opened.initialize()
    yield opened
    await assert_consistent(opened)
    await opened.close()


async def populate(backend: Backend) -> list[str]:
    """Runs of two workflows in every state, with retries, failures, skips, a reclaim and a cancel."""
    runs = [await submit(backend, DIAMOND) for _ in range(3)]
    await complete(backend, runs[0], "a", "b", "c", "d")
    await complete(backend, runs[1], "a")
    await backend.skip_step(await claim(backend, runs[1], "b"), "not needed")
    for number, prints in enumerate(OTHER):
        run_id = await submit(backend, RETRIED)
        runs.append(run_id)
        await fail(backend, await claim(backend, run_id, "a"), duration_us=number)
        error = {"message": f"broken {number // 2}", "stack": "trace"}
        await backend.fail_step(await claim(backend, run_id, "a"), error, prints, duration_us=7, reason="timeout")
        last = await claim(backend, run_id, "a", worker="w2")
        if number == 0:
            await backend.complete_step(last, "1", duration_us=11)
        elif number == 1:
            await backend.fail_step(last, error, prints, duration_us=9)
    await backend.cancel_run(runs[2])
    for partition in range(len(backend.partitions)):
        await backend.reclaim_round(partition, threshold_us=0, reclaimed_by="r1")
    return runs


async def events_of(backend: Backend, runs: Sequence[str]) -> list[AnyEvent]:
    """The events of the runs, one run after the other."""
    found: dict[str, list[AnyEvent]] = {}
    for run_id in runs:
        state = await backend.get_run(run_id)
        assert state is not None
        found[run_id] = await backend.load_events(state.workflow_slug, run_id)
    return [event for events in found.values() for event in events]


def unordered(model: Any) -> Any:
    """The wire form with lists as sets, for figures whose ties stand in the order of the runs."""
    value = model.to_wire() if hasattr(model, "to_wire") else model
    if isinstance(value, dict):
        return {key: unordered(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((unordered(item) for item in value), key=repr)
    return value


async def summary_of(backend: Backend, runs: Sequence[str], window: Window) -> Any:
    """The summary as the pure counters give it."""
    events = [event for event in await events_of(backend, runs) if window.holds(event)]
    return feed(SummaryCounter(), events).result(window, await backend.get_queue_depth(window.workflow_slug))


async def check_window(backend: Backend, runs: Sequence[str], **options: Any) -> Any:
    """Every figure of a window is what the pure function gives; answers with the summary."""
    window = Window(**{**options, "run_ids": frozenset(options["run_ids"]) if "run_ids" in options else None})
    summary = await backend.get_analytics_summary(**options)
    assert unordered(summary) == unordered(await summary_of(backend, runs, window))
    methods = {
        "error_analysis": backend.get_error_analysis, "retry_analysis": backend.get_retry_analysis,
        "scheduling_latency": backend.get_scheduling_latency, "step_duration": backend.get_step_duration,
        "workflow_duration": backend.get_workflow_duration, "worker_stability": backend.get_worker_stability,
        "throughput": backend.get_throughput, "success_rate": backend.get_success_rate,
    }  # fmt: skip
    for name, method in methods.items():
        assert await method(**options) == getattr(summary, name), name
    return summary


@pytest.mark.parametrize("partitions", [1, 4])
async def test_figures_are_those_of_the_pure_functions(backend: Backend) -> None:
    runs = await populate(backend)
    now = await backend.now()
    summary = await check_window(backend, runs, start_us=now - HOUR, end_us=now)
    assert (summary.retry_analysis.total_retries, summary.retry_analysis.retries_succeeded) == (6, 1)
    assert (summary.success_rate.total_runs, summary.success_rate.cancelled_runs) == (4, 1)
    assert summary.error_analysis.total_failures == 7
    assert summary.worker_stability.steps_reclaimed_by_worker == {"w2": 1}
    assert summary.throughput.time_range_us == HOUR


@pytest.mark.parametrize("partitions", [1, 4])
async def test_filters(backend: Backend) -> None:
    runs = await populate(backend)
    now = await backend.now()
    whole = {"start_us": now - HOUR, "end_us": now}
    retried = await check_window(backend, runs, workflow_slug="retried", **whole)
    assert retried.error_analysis.workflow_slug == "retried"
    one_step = await check_window(backend, runs, workflow_slug="flow", step_id="a", **whole)
    assert (one_step.success_rate.total_runs, one_step.success_rate.successful_steps) == (0, 2)
    assert (await check_window(backend, runs, run_ids=runs[:2], **whole)).success_rate.total_runs == 1
    assert (await check_window(backend, runs, run_ids=[], **whole)).success_rate.total_steps == 0
    unknown = await check_window(backend, runs, workflow_slug="unknown", **whole)
    assert (unknown.success_rate.total_runs, unknown.error_analysis.total_failures) == (0, 0)


async def test_every_window_is_by_the_time_of_events(backend: Backend) -> None:
    runs = await populate(backend)
    times = sorted({event.timestamp_us for event in await events_of(backend, runs)})
    for first, last in ((0, 10), (5, 5), (len(times) // 2, -1), (0, -1)):
        await check_window(backend, runs, start_us=times[first], end_us=times[last])
    await check_window(backend, runs, start_us=times[-1] + 1, end_us=times[-1] + HOUR)


async def test_the_default_window_is_the_last_day(backend: Backend) -> None:
    old = await submit(backend, CHAIN)
    await complete(backend, old, "a", "b")
    await travel(backend, 30 * HOUR)
    new = await submit(backend, CHAIN)
    await complete(backend, new, "a")
    summary = await backend.get_analytics_summary()
    assert summary.time_range.duration_us == 24 * HOUR
    assert (summary.success_rate.total_runs, summary.success_rate.successful_steps) == (0, 1)
    assert (await backend.get_throughput(start_us=0)).runs_completed == 1


async def test_events_with_a_time_of_their_own_count_by_it(backend: Backend) -> None:
    """A history that was imported, and an event in the middle of a run of the engine."""
    partition = backend.partition("old-1")
    rest: list[Any] = []
    for kind, name, fields, payload in (
        (
            "WorkflowStarted",
            "",
            {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False, "ts": 1000},
            "",
        ),
        ("StepStarted", "a", {"a": 1, "wi": "w", "dp": [], "ts": 1030}, ""),
        ("StepCompleted", "a", {"a": 1, "d": 5, "x": False, "ts": 1040}, "1"),
        ("StepScheduled", "a", {"a": 1, "r": "i", "v": 1010, "ts": 1010}, ""),
        ("WorkflowCompleted", "", {"w": 1, "d": 50, "n": 1, "ts": 1050}, ""),
    ):
        rest += ["old-1", kind, name, pack({**fields, "sv": 1}), payload, ""]
    await backend.call("append", partition, rest)
    live = await start(backend, CHAIN)
    late = pack({"a": 1, "d": 3, "x": False, "ts": 1045, "sv": 1})
    await backend.call("append", backend.partition(live.run_id), [live.run_id, "StepCompleted", "z", late, "1", ""])
    summary = await check_window(backend, ["old-1", live.run_id], start_us=1010, end_us=1045)
    assert (summary.success_rate.successful_steps, summary.success_rate.total_runs) == (2, 0)
    assert summary.scheduling_latency.max_us == 20
    await check_window(backend, ["old-1", live.run_id], start_us=0, end_us=1060)


async def save(backend: Backend, run_id: str, kind: str, at: int | None = None, **fields: Any) -> None:
    """Append an event of step a, at a time of its own or now."""
    fields |= {"a": 1, "sv": 1, **({} if at is None else {"ts": at})}
    payload = "1" if kind == "StepCompleted" else ""
    await backend.call("append", backend.partition(run_id), [run_id, kind, "a", pack(fields), payload, ""])


async def check_every_start(backend: Backend, runs: Sequence[str]) -> None:
    """Windows that begin at each event of the runs, and just after it; every other for one workflow alone."""
    times = sorted({event.timestamp_us for event in await events_of(backend, runs)})
    for index, low in enumerate(sorted({at + shift for at in times for shift in (0, 1)})):
        await check_window(
            backend, runs, start_us=low, end_us=times[-1] + HOUR, workflow_slug="flow" if index % 2 else None
        )


ENDED = {"d": 3, "x": False}
RETRYING = {"na": 2, "e": {"message": "m"}}


@pytest.mark.parametrize("partitions", [1, 4])
async def test_events_after_the_end_of_their_run_count(backend: Backend, partitions: int) -> None:
    runs = [await submit(backend, CHAIN) for _ in range(5)]
    for run_id in runs[:4]:
        await complete(backend, run_id, "a", "b")
    await travel(backend, SECOND, backend.partition(runs[0]))
    await save(backend, runs[0], "StepCompleted", **ENDED)  # at the time of the call
    await save(backend, runs[1], "StepRetrying", await backend.now() + 2 * HOUR, **RETRYING)
    await save(backend, runs[1], "StepCompleted", await backend.now() + HOUR, **ENDED)  # the later one stays the latest
    await save(backend, runs[2], "LogEntry", await backend.now() + HOUR, st="stdout", m="line")
    await save(backend, runs[3], "StepCompleted", await backend.now() - HOUR, **ENDED)
    await save(backend, runs[4], "StepRetrying", await backend.now() + 3 * HOUR, **RETRYING)  # before it ended
    await complete(backend, runs[4], "a", "b")
    strays = {run_id for keys in backend.partitions for run_id in await scores(backend, keys.strays)}
    assert strays == {runs[0], runs[1], runs[4]}
    await check_every_start(backend, runs)
    late = await backend.now() + 2 * HOUR
    assert (await backend.get_retry_analysis(start_us=late, end_us=late + 2 * HOUR)).total_retries == 1
    for run_id in runs:
        await backend.delete_run(run_id)
    assert [await scores(backend, keys.strays) for keys in backend.partitions] == [{}] * partitions


async def test_a_history_whose_end_is_not_its_last_event(backend: Backend) -> None:
    rest: list[Any] = []
    for kind, name, fields in (
        ("WorkflowStarted", "", {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False, "ts": 1000}),
        ("WorkflowCompleted", "", {"w": 1, "d": 50, "n": 1, "ts": 1020}),
        ("StepStarted", "a", {"a": 1, "wi": "w", "dp": [], "ts": 1030}),
        ("StepCompleted", "a", {"a": 1, "d": 5, "x": False, "ts": 1040}),
    ):
        rest += ["old-1", kind, name, pack({**fields, "sv": 1}), "1" if kind == "StepCompleted" else "", ""]
    await backend.call("append", 0, rest)
    await check_every_start(backend, ["old-1"])
    strays = backend.partitions[0].strays
    assert await scores(backend, strays) == {"old-1": 1040}
    await backend.client.zrem(strays, "old-1")
    verifier = Verifier(backend)
    assert [violation.rule for violation in await verifier.check_run("old-1")] == ["strays"]
    await verifier.repair(await verifier.check_run("old-1"))
    assert await scores(backend, strays) == {"old-1": 1040}
    await backend.delete_step_events("legacy", "old-1", ["a"])
    assert await scores(backend, backend.partitions[0].strays) == {}


async def test_a_stray_that_is_retried_still_counts_once(backend: Backend) -> None:
    failed = await submit(backend, CHAIN)
    await fail(backend, await claim(backend, failed, "a"))
    await save(backend, failed, "StepRetrying", await backend.now() + HOUR, **RETRYING)
    await backend.retry_run(failed)
    await check_every_start(backend, [failed])
    await complete(backend, failed, "a", "b")
    await check_every_start(backend, [failed])


async def test_a_worker_seen_after_the_end_of_its_run_is_active(backend: Backend) -> None:
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a", "b")
    await travel(backend, 48 * HOUR)
    assert (await backend.get_active_workers()).workers == ()
    await save(backend, run_id, "StepHeartbeat", wi="late")
    assert [worker.worker_id for worker in (await backend.get_active_workers()).workers] == ["late"]


async def test_the_last_of_a_pair_is_the_last_by_time(backend: Backend) -> None:
    rest: list[Any] = []
    for kind, name, fields in (
        ("WorkflowStarted", "", {"wf": "legacy", "vi": "v1", "w": 1, "hs": False, "hi": False, "ts": 1000}),
        ("StepScheduled", "a", {"a": 1, "r": "i", "v": 1020, "ts": 1020}),
        ("StepScheduled", "a", {"a": 1, "r": "i", "v": 1010, "ts": 1010}),
        ("StepStarted", "a", {"a": 1, "wi": "w", "dp": [], "ts": 1030}),
        ("StepCompleted", "a", {"a": 1, "d": 5, "x": False, "ts": 1040}),
        ("WorkflowCompleted", "", {"w": 1, "d": 50, "n": 1, "ts": 1050}),
    ):
        rest += ["old-1", kind, name, pack({**fields, "sv": 1}), "1" if kind == "StepCompleted" else "", ""]
    await backend.call("append", 0, rest)
    assert (await backend.get_scheduling_latency(start_us=0)).max_us == 10


async def test_long_streams_and_many_runs_are_paged(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RUNS", 2), ("STREAMS", 2), ("ENTRIES", 3)):
        monkeypatch.setattr(walk, name, value)
    monkeypatch.setattr("redisflow.backend.redis.error_queries.FAILURES", 2)
    runs = await populate(backend)
    runs += [result.run_id for result in await backend.submit(RETRIED, [Submission() for _ in range(5)])]
    now = await backend.now()
    await check_window(backend, runs, start_us=now - HOUR, end_us=now)
    await check_window(backend, runs, start_us=now - HOUR, end_us=now, workflow_slug="retried")


async def test_a_run_that_ends_meanwhile_counts_once(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was when its stream was read: among the live runs, before it ended."""
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a")
    read = backend.scored_pages

    async def pages(key: str, low: Any, high: Any) -> AsyncIterator[Any]:
        if key == backend.partitions[0].ended:
            await complete(backend, run_id, "b")
        async for page in read(key, low, high):
            yield page

    monkeypatch.setattr(backend, "scored_pages", pages)
    end = await backend.now() + HOUR
    assert (await backend.get_step_duration(start_us=0, end_us=end)).count == 1


async def test_members_of_one_score_are_all_seen(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "RUNS", 3)
    key = backend.partitions[0].once("probe")
    scores = {f"m{number}": number // 5 for number in range(17)}
    await backend.client.zadd(key, scores)
    await backend.client.expire(key, 60)
    found = [member.decode() async for page in backend.scored_pages(key, 1, "+inf") for member, _ in page]
    assert sorted(found) == sorted(name for name, score in scores.items() if score >= 1)


async def test_an_empty_namespace_is_zeros(backend: Backend) -> None:
    summary = await backend.get_analytics_summary()
    window = Window(summary.time_range.start_us, summary.time_range.end_us)
    assert summary == SummaryCounter().result(window, await backend.get_queue_depth())
    assert (await backend.get_errors_list()).to_wire() == {"errors": [], "total": 0}
    assert await backend.get_queue_depth_by_workflow() == []
    detail = (await backend.get_error_detail("a:b:c", "portable")).to_wire()
    assert (detail.pop("fingerprint"), detail.pop("occurrences")) == ("a:b:c", [])
    assert set(detail.values()) == {0, ""}


@pytest.mark.parametrize("grouping", ["exact", "normalized", "portable"])
@pytest.mark.parametrize("partitions", [1, 4])
async def test_errors_are_grouped_by_their_stored_hashes(backend: Backend, grouping: Any) -> None:
    runs = await populate(backend)
    events = sorted(await events_of(backend, runs), key=lambda event: event.timestamp_us)
    found = await backend.get_errors_list(grouping_strategy=grouping)
    assert found == figures.errors_list(events, grouping)
    assert found.total == (4 if grouping == "exact" else 3)
    assert await backend.get_errors_list(grouping_strategy=grouping, limit=1, offset=1) == figures.errors_list(
        events, grouping, limit=1, offset=1
    )
    assert (await backend.get_errors_list(workflow_slug="flow")).total == 0
    assert (await backend.get_errors_list(workflow_slug="retried", limit=0)).total == 4
    for group in found.errors:
        detail = await backend.get_error_detail(group.fingerprint, grouping)
        assert detail == figures.error_detail(events, group.fingerprint, grouping)
        page = await backend.get_error_detail(group.fingerprint, grouping, limit=1, offset=1)
        assert page.occurrences == detail.occurrences[1:2]
        early = await backend.get_error_detail(group.fingerprint, grouping, end_us=group.first_seen)
        assert early.total_count == 1


async def test_errors_of_a_deleted_run_are_gone(backend: Backend) -> None:
    runs = await populate(backend)
    before = (await backend.get_error_analysis()).total_failures
    await backend.delete_run(runs[3])
    assert (await backend.get_error_analysis()).total_failures == before - 2


@pytest.mark.parametrize("partitions", [1, 4])
async def test_depth_counts_live_runs_and_their_steps(backend: Backend) -> None:
    diamonds = [await submit(backend, DIAMOND) for _ in range(3)]
    later = await submit(backend, RETRIED, delay_us=HOUR)
    await complete(backend, diamonds[0], "a")
    await claim(backend, diamonds[0], "b")
    await complete(backend, diamonds[1], "a", "b", "c", "d")
    await backend.register_plan(DIAMOND)
    waiting, delayed = await backend.get_run(diamonds[2]), await backend.get_run(later)
    assert waiting is not None
    assert delayed is not None
    depth = await backend.get_queue_depth()
    assert depth.to_wire() == {
        "pendingRuns": 2, "runningRuns": 1, "scheduledSteps": 3, "runningSteps": 1,
        "oldestScheduledStepUs": waiting.available_at, "oldestPendingRunUs": waiting.created_at,
    }  # fmt: skip
    assert (await backend.get_queue_depth("retried")).to_wire() == {
        "workflowSlug": "retried", "pendingRuns": 1, "runningRuns": 0, "scheduledSteps": 1, "runningSteps": 0,
        "oldestScheduledStepUs": delayed.available_at, "oldestPendingRunUs": delayed.created_at,
    }  # fmt: skip
    assert [found.to_wire() for found in await backend.get_queue_depth_by_workflow()] == [
        {"workflowSlug": "flow", "workflowName": "flow", "pendingRuns": 1, "scheduledSteps": 2,
         "oldestPendingItemUs": waiting.created_at},
        {"workflowSlug": "retried", "pendingRuns": 1, "scheduledSteps": 1,
         "oldestPendingItemUs": delayed.created_at},
    ]  # fmt: skip
    unknown = (await backend.get_queue_depth("unknown")).to_wire()
    assert set(unknown.values()) == {"unknown", 0}


async def test_depth_tells_workflows_of_a_shared_queue_apart(backend: Backend) -> None:
    for slug, count in (("one", 1), ("two", 3)):
        shared = plan(step("a", queue="shared", slug=slug), slug=slug)
        for _ in range(count):
            await submit(backend, shared)
    assert (await backend.get_queue_depth("one")).scheduled_steps == 1
    assert (await backend.get_queue_depth("two")).scheduled_steps == 3
    assert (await backend.get_queue_depth()).scheduled_steps == 4
    found = await backend.get_queue_depth_by_workflow()
    assert [(depth.workflow_slug, depth.scheduled_steps) for depth in found] == [("two", 3), ("one", 1)]


async def test_depth_leaves_out_steps_of_ended_runs(backend: Backend) -> None:
    """A run of over 500 steps leaves the queue in several calls; from its end on it counts no more."""
    large = await submit(backend, fan_out(600))
    await submit(backend, CHAIN)
    await backend.cancel_run(large)
    for slug in (None, "flow"):
        assert (await backend.get_queue_depth(slug)).scheduled_steps == 1


async def test_a_reclaimed_worker_is_counted(backend: Backend) -> None:
    await start(backend, CHAIN)
    await travel(backend, 60 * SECOND)
    await reclaim(backend, 30 * SECOND)
    stability = await backend.get_worker_stability()
    assert (stability.total_reclamations, stability.most_unstable_workers[0].worker_id) == (1, "w1")
    assert stability.average_stale_time_us >= 60 * SECOND


async def test_wrong_arguments_are_refused(settings: Settings) -> None:
    """Before anything is read: the backend is not even open."""
    backend = Backend(settings)
    for name, options in (
        ("start_us", {"start_us": 2, "end_us": 1}), ("start_us", {"start_us": "1"}),
        ("end_us", {"end_us": 1.5}),
        ("end_us", {"end_us": True}), ("workflow_slug", {"workflow_slug": "a b"}),
        ("step_id", {"step_id": ""}),
        ("run_ids", {"run_ids": "r1"}), ("run_ids", {"run_ids": ["a b"]}),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=rf"^{name}="):
            await backend.get_analytics_summary(**options)  # type: ignore[arg-type]
    for name, wrong in (
        ("limit", {"limit": -1}), ("offset", {"offset": -1}), ("limit", {"limit": True}),
        ("grouping_strategy", {"grouping_strategy": "fuzzy"}), ("start_us", {"start_us": 2, "end_us": 1}),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=rf"^{name}="):
            await backend.get_errors_list(**wrong)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match=rf"^{name}="):
            await backend.get_error_detail("a:b:c", **wrong)  # type: ignore[arg-type]
    for fingerprint in ("a:b", "a:b:c:d", "", None):
        with pytest.raises(InvalidArgument, match=r"^fingerprint="):
            await backend.get_error_detail(fingerprint, "exact")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^workflow_slug="):
        await backend.get_queue_depth("a b")
    with pytest.raises(TypeError, match="unknown"):
        await backend.get_throughput(unknown=1)  # type: ignore[call-arg]


async def test_a_backend_that_is_not_open_says_so(settings: Settings) -> None:
    backend = Backend(settings)
    for call in (backend.get_throughput, backend.get_errors_list):
        with pytest.raises(ServerUnavailable):
            await call(start_us=1, end_us=2)
    with pytest.raises(ServerUnavailable):
        await backend.get_queue_depth()


async def test_on_a_cluster(cluster_server: TestServer, settings: Settings) -> None:
    backend = Backend(settings.model_copy(update={"url": cluster_server.url, "partitions": 4}))
    await backend.initialize()
    try:
        runs = await populate(backend)
        now = await backend.now()
        await check_window(backend, runs, start_us=now - HOUR, end_us=now)
        assert (await backend.get_errors_list()).total == 4
        assert len(await backend.get_queue_depth_by_workflow()) == 2
    finally:
        await backend.close()
