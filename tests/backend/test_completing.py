"""complete and skip: a step ends, and the same call schedules, skips and ends what follows from it."""

from __future__ import annotations

import json

import pytest

from redisflow.backend.redis import RedisBackend
from tests.flows import (
    CHAIN,
    DIAMOND,
    ONE,
    PAIR,
    claim,
    complete,
    done,
    field,
    header,
    history,
    plan,
    scores,
    start,
    status,
    statuses,
    step,
    submit,
    typed,
)


async def test_the_last_completion_ends_the_run(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    done(await backend.complete_step(claimed, '{"ok":1}', duration_us=1234))
    assert (await history(backend, claimed.run_id))[4:] == ["StepCompleted a", "WorkflowCompleted"]
    completed, ended = (await typed(backend, claimed.run_id))[4:]
    assert (completed.output, completed.duration_us, completed.attempt_number) == ('{"ok":1}', 1234, 1)
    assert not completed.export_output
    assert (ended.total_steps, ended.workflow_attempt_number) == (1, 1)
    state = await backend.get_run(claimed.run_id)
    assert state is not None
    assert (state.status, state.completed_at) == ("completed", ended.timestamp_us)
    assert ended.duration_us == ended.timestamp_us - state.created_at


async def test_derived_keys_of_a_completed_run(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE, timeout_us=60_000_000, tags=["eu"])
    run_id, keys = claimed.run_id, backend.partitions[0]
    assert f"run:{run_id}" in await scores(backend, keys.deadlines)
    await backend.complete_step(claimed, "1")
    state = await backend.get_run(run_id)
    assert state is not None
    assert await scores(backend, keys.running) == {}
    assert await scores(backend, keys.deadlines) == {}
    assert await scores(backend, keys.ended) == {run_id: state.completed_at}
    assert await scores(backend, keys.index("flow", "completed")) == {run_id: state.created_at}
    assert await scores(backend, keys.index("flow", "running")) == {}
    assert await scores(backend, keys.tag("flow", "eu")) == {run_id: state.created_at}
    found = await field(backend, run_id, "a")
    assert (found.status, found.lease, found.ended, found.kind) == ("c", 0, claimed.lease, "c")
    head = await header(backend, run_id)
    assert (head.open, head.active, head.done) == (0, 0, 1)


async def test_a_dependent_is_scheduled_in_the_same_call(backend: RedisBackend) -> None:
    claimed = await start(backend, CHAIN)
    await backend.complete_step(claimed, "1")
    assert (await history(backend, claimed.run_id))[4:] == ["StepCompleted a", "StepScheduled b"]
    completed, scheduled = (await typed(backend, claimed.run_id))[4:]
    assert (scheduled.reason, scheduled.attempt_number) == ("dependency-satisfied", 1)
    assert int(scheduled.event_id) == int(completed.event_id) + 1
    assert scheduled.available_at_us == scheduled.timestamp_us
    assert await status(backend, claimed.run_id) == "running"


async def test_a_dependent_keeps_the_priority_of_the_run(backend: RedisBackend) -> None:
    claimed = await start(backend, CHAIN, priority=9)
    await backend.complete_step(claimed, "1")
    assert list(await scores(backend, backend.partitions[0].scheduled("flow", 9))) == [f"{claimed.run_id}|b"]


async def test_a_step_stands_in_its_own_queue(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b", "a", queue="gpu")))
    await complete(backend, run_id, "a")
    assert list(await scores(backend, backend.partitions[0].levels)) == ["gpu:0"]
    await complete(backend, run_id, "b")
    assert await status(backend, run_id) == "completed"


async def test_fan_in_waits_for_the_last(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b"), step("c"), step("last", "a", "b", "c")))
    await complete(backend, run_id, "c", "a")
    assert (await field(backend, run_id, "last")).unmet == 1
    assert "StepScheduled last" not in await history(backend, run_id)
    await complete(backend, run_id, "b")
    assert (await history(backend, run_id))[-2:] == ["StepCompleted b", "StepScheduled last"]
    await complete(backend, run_id, "last")
    assert await status(backend, run_id) == "completed"


async def test_diamond(backend: RedisBackend) -> None:
    run_id = await submit(backend, DIAMOND)
    await complete(backend, run_id, "a", "c", "b", "d")
    assert await history(backend, run_id) == [
        "RunSubmitted", "StepScheduled a",
        "WorkflowStarted", "StepStarted a", "StepCompleted a", "StepScheduled b", "StepScheduled c",
        "StepStarted c", "StepCompleted c",
        "StepStarted b", "StepCompleted b", "StepScheduled d",
        "StepStarted d", "StepCompleted d", "WorkflowCompleted",
    ]  # fmt: skip
    assert (await typed(backend, run_id, "WorkflowCompleted"))[0].total_steps == 4


async def test_the_output_is_that_of_the_exported_steps(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await backend.complete_step(await claim(backend, run_id, "b"), '{"n":1}', export_output=True)
    await backend.complete_step(await claim(backend, run_id, "a"), "2")
    assert json.loads((await typed(backend, run_id, "WorkflowCompleted"))[0].output) == {"b": {"n": 1}}
    assert await backend.exported_outputs(run_id) == {"b": '{"n":1}'}


@pytest.mark.parametrize("size", [59, 60, 61, 5000])
async def test_outputs_are_kept_whole(backend: RedisBackend, size: int) -> None:
    """The hash holds short ones itself and names the event for the rest: around the limit all is kept."""
    run_id = await submit(backend, CHAIN)
    text = '"' + "ü" + "x" * (size - 1) + '"'
    await backend.complete_step(await claim(backend, run_id, "a"), text)
    assert (await claim(backend, run_id, "b")).outputs["a"] == text


async def test_a_skip_ends_the_step_and_the_run(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    done(await backend.skip_step(claimed, "not today", metadata={"why": ["rain"]}))
    assert (await history(backend, claimed.run_id))[4:] == ["StepSkipped a", "WorkflowCompleted"]
    skipped = (await typed(backend, claimed.run_id, "StepSkipped"))[0]
    assert (skipped.skip_type, skipped.reason, skipped.metadata) == (
        "primary",
        "not today",
        {"why": ["rain"]},
    )
    assert await status(backend, claimed.run_id) == "completed"
    assert (await field(backend, claimed.run_id, "a")).kind == "k"


async def test_a_skip_cascades_over_required_edges(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("b", "a"), step("c", "b"), step("d", "a", "c")))
    await backend.skip_step(await claim(backend, run_id, "a"), "no")
    assert (await history(backend, run_id))[4:] == [
        "StepSkipped a", "StepSkipped b", "StepSkipped d", "StepSkipped c", "WorkflowCompleted",
    ]  # fmt: skip
    cascaded = (await typed(backend, run_id, "StepSkipped"))[1:]
    assert [(e.step_id, e.skip_type, e.cascaded_from) for e in cascaded] == [
        ("b", "cascade", "a"), ("d", "cascade", "a"), ("c", "cascade", "b"),
    ]  # fmt: skip
    assert set((await statuses(backend, run_id)).values()) == {"skipped"}


async def test_a_skip_spares_optional_and_after_edges(backend: RedisBackend) -> None:
    run_id = await submit(
        backend, plan(step("a"), step("must", "a"), step("may", optional=["a"]), step("then", after=["a"]))
    )
    await backend.skip_step(await claim(backend, run_id, "a"), "no")
    assert (await history(backend, run_id))[4:] == [
        "StepSkipped a", "StepSkipped must", "StepScheduled may", "StepScheduled then",
    ]  # fmt: skip
    claimed = await claim(backend, run_id, "may")
    assert dict(claimed.outputs) == {}
    await backend.complete_step(claimed, "1")
    await complete(backend, run_id, "then")
    assert await status(backend, run_id) == "completed"


async def test_a_cascaded_skip_counts_as_done_for_weaker_edges_below(backend: RedisBackend) -> None:
    run_id = await submit(
        backend, plan(step("a"), step("b", "a"), step("c", optional=["b"]), step("d", "c", after=["b"]))
    )
    await backend.skip_step(await claim(backend, run_id, "a"), "no")
    await complete(backend, run_id, "c", "d")
    assert await statuses(backend, run_id) == {
        "a": "skipped",
        "b": "skipped",
        "c": "completed",
        "d": "completed",
    }


async def test_a_cascade_leaves_other_branches_running(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("a"), step("x"), step("join", "a", "x"), step("tail", "x")))
    other = await claim(backend, run_id, "x")
    await backend.skip_step(await claim(backend, run_id, "a"), "no")
    assert await statuses(backend, run_id) == {"a": "skipped", "x": "running", "join": "skipped"}
    await backend.complete_step(other, "1")
    await complete(backend, run_id, "tail")
    assert (await history(backend, run_id))[-1] == "WorkflowCompleted"


async def test_follow_gives_every_event_to_the_end(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a")
    seen = []
    async for event in backend.follow(run_id):
        seen.append(event.type)
        if len(seen) == 6:  # all there is so far: the rest comes while somebody follows
            await complete(backend, run_id, "b")
    assert seen == [line.split()[0] for line in await history(backend, run_id)]
    assert seen[-1] == "WorkflowCompleted"


async def test_load_events_filters(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    await complete(backend, run_id, "a", "b")
    steps = await backend.load_events("flow", run_id, category="step", step_id="b")
    assert [event.type for event in steps] == ["StepScheduled", "StepStarted", "StepCompleted"]
    runs = await backend.load_events("flow", run_id, category="workflow")
    assert [event.type for event in runs] == ["RunSubmitted", "WorkflowStarted", "WorkflowCompleted"]
    assert await backend.load_events("flow", "no-such-run") == []
