"""Runs too large for one call: the first steps go at once, the rest by turns and rounds of the reclaimer."""

from __future__ import annotations

from redisflow.backend.redis import RedisBackend
from tests.conftest import assert_consistent
from tests.flows import (
    ERROR,
    PRINTS,
    SECOND,
    claim,
    complete,
    completed,
    fan_in_and_out,
    fan_out,
    header,
    history,
    plan,
    reclaim,
    scores,
    status,
    step,
    submit,
    turn,
    typed,
)

WIDTH = 1200


async def rounds(backend: RedisBackend) -> int:
    """Rounds of the reclaimer until nothing waits in `expand`."""
    count = 0
    while await scores(backend, backend.partitions[0].expand):
        await reclaim(backend, 10**12)
        count += 1
        assert count < 50
    return count


async def drain(backend: RedisBackend) -> list[str]:
    """Turns of one worker that completes all it gets, until it gets nothing twice; the steps in order."""
    seq, idle, outcomes, ran = 0, 0, [], []
    while idle < 2:
        seq += 1
        reply = await turn(backend, seq, want=64, outcomes=outcomes)
        assert all(answer == 0 for answer in reply[4])
        claims = reply[5]
        idle = 0 if claims or outcomes else idle + 1
        outcomes = [part for run, name, *_ in claims for part in completed(run.decode(), name.decode(), reply[1])]
        ran += [name.decode() for _, name, *_ in claims]
    return ran


async def test_a_saved_event_stops_no_run_in_its_tracks(backend: RedisBackend) -> None:
    """One with a time of its own has the run folded anew, while most of its roots still wait in `expand`."""
    run_id = await submit(backend, fan_out(WIDTH))
    early = (await header(backend, run_id)).created - 1
    event = {
        "category": "step", "type": "StepScheduled", "stepId": "s0", "attemptNumber": 1, "reason": "initial",
        "availableAtUs": early,
    }  # fmt: skip
    await backend.append_event("flow", run_id, {**event, "timestampUs": early})
    await rounds(backend)
    assert len(await scores(backend, backend.partitions[0].scheduled("flow", 0))) == WIDTH


async def test_1200_roots_are_scheduled_by_rounds(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    keys = backend.partitions[0]
    first = len(await scores(backend, keys.scheduled("flow", 0)))
    assert 0 < first < WIDTH
    assert list(await scores(backend, keys.expand)) == [run_id]
    await assert_consistent(backend)
    assert await rounds(backend) > 1
    assert len(await scores(backend, keys.scheduled("flow", 0))) == WIDTH
    scheduled = await typed(backend, run_id, "StepScheduled")
    assert len({e.step_id for e in scheduled}) == len(scheduled) == WIDTH
    assert {(e.reason, e.attempt_number) for e in scheduled} == {("initial", 1)}
    head = await header(backend, run_id)
    assert (head.open, head.active, head.done) == (WIDTH, WIDTH, 0)


async def test_1200_delayed_roots_are_due_together(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH), delay_us=3600 * SECOND)
    await rounds(backend)
    state = await backend.get_run(run_id)
    assert state is not None
    due = set((await scores(backend, backend.partitions[0].scheduled("flow", 0))).values())
    assert due == {state.available_at}
    assert {e.available_at_us for e in await typed(backend, run_id, "StepScheduled")} == {state.available_at}


async def test_turns_alone_run_1200_roots(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    ran = await drain(backend)
    assert sorted(ran) == sorted(f"s{i}" for i in range(WIDTH))
    assert await status(backend, run_id) == "completed"
    assert (await history(backend, run_id)).count("WorkflowCompleted") == 1


async def test_turns_alone_run_1200_dependents(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_in_and_out(WIDTH))
    ran = await drain(backend)
    assert (ran[0], ran[-1], len(set(ran)), len(ran)) == ("root", "last", WIDTH + 2, WIDTH + 2)
    assert await status(backend, run_id) == "completed"


async def test_1200_dependents_are_scheduled_by_rounds(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_in_and_out(WIDTH))
    await complete(backend, run_id, "root")
    await assert_consistent(backend)
    assert len(await scores(backend, backend.partitions[0].scheduled("flow", 0))) < WIDTH
    await rounds(backend)
    scheduled = (await typed(backend, run_id, "StepScheduled"))[1:]
    assert len({e.step_id for e in scheduled}) == len(scheduled) == WIDTH
    assert {e.reason for e in scheduled} == {"dependency-satisfied"}


async def test_1200_dependents_of_a_skip_that_counts_as_done(backend: RedisBackend) -> None:
    names = [f"s{i}" for i in range(WIDTH)]
    run_id = await submit(backend, plan(step("root"), *(step(name, after=["root"]) for name in names)))
    await backend.skip_step(await claim(backend, run_id, "root"), "no")
    await rounds(backend)
    assert len(await scores(backend, backend.partitions[0].scheduled("flow", 0))) == WIDTH


async def test_a_cascade_over_1200_steps(backend: RedisBackend) -> None:
    run_id = await submit(backend, plan(step("root"), *(step(f"s{i}", "root") for i in range(WIDTH))))
    await backend.skip_step(await claim(backend, run_id, "root"), "no")
    await rounds(backend)
    lines = await history(backend, run_id)
    assert sum(line.startswith("StepSkipped") for line in lines) == WIDTH + 1
    assert lines[-1] == "WorkflowCompleted"


async def test_a_chain_of_1200_skips(backend: RedisBackend) -> None:
    chain = [step("s0"), *(step(f"s{i}", f"s{i - 1}") for i in range(1, WIDTH))]
    run_id = await submit(backend, plan(*chain))
    await backend.skip_step(await claim(backend, run_id, "s0"), "no")
    await rounds(backend)
    assert await status(backend, run_id) == "completed"


async def test_cancel_with_1200_scheduled_steps(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    await rounds(backend)
    running = await claim(backend, run_id, "s7")
    assert (await backend.cancel_run(run_id)).cancelled
    assert await status(backend, run_id) == "cancelled"
    assert (await backend.complete_step(running, "1")).reply.name == "RUN_ENDED"
    assert await backend.claim_step(run_id, "s8", "w1") is None
    assert (await turn(backend, 1, want=10))[5] == []
    await assert_consistent(backend)
    await rounds(backend)
    keys = backend.partitions[0]
    for key in (keys.scheduled("flow", 0), keys.levels, keys.running, keys.expand):
        assert await scores(backend, key) == {}
    assert (await history(backend, run_id))[-1] == "WorkflowCancelled"


async def test_cancel_before_all_roots_are_scheduled(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    await backend.cancel_run(run_id)
    await rounds(backend)
    lines = await history(backend, run_id)
    assert lines[-1] == "WorkflowCancelled"
    assert await scores(backend, backend.partitions[0].levels) == {}


async def test_a_failure_among_1200_steps(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    await backend.fail_step(await claim(backend, run_id, "s0"), ERROR, PRINTS)
    assert await status(backend, run_id) == "failed"
    await rounds(backend)
    assert await scores(backend, backend.partitions[0].levels) == {}


async def test_delete_takes_the_members_of_a_large_run_away(backend: RedisBackend) -> None:
    run_id = await submit(backend, fan_out(WIDTH))
    await rounds(backend)
    await backend.cancel_run(run_id)
    assert await backend.delete_run(run_id)
    keys = backend.partitions[0]
    for key in (keys.scheduled("flow", 0), keys.levels, keys.expand, keys.ended):
        assert await scores(backend, key) == {}


async def test_a_large_run_that_is_to_finish(backend: RedisBackend) -> None:
    """A failure ends nothing while steps wait to be scheduled."""
    workflow = plan(*(step(f"s{i}") for i in range(WIDTH)), on_error="finish")
    run_id = await submit(backend, workflow)
    await backend.fail_step(await claim(backend, run_id, "s0"), ERROR, PRINTS)
    assert await status(backend, run_id) == "running"
    ran = await drain(backend)
    assert len(ran) == WIDTH - 1
    assert (await history(backend, run_id))[-1] == "WorkflowFailed"
    assert (await typed(backend, run_id, "WorkflowFailed"))[0].completed_steps == WIDTH - 1
