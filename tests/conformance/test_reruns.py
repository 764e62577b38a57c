"""Retry, resume, rerun, copies and deletions of events: what they write, and that every key follows."""

from __future__ import annotations

import pytest

from redisflow import Client, Retry, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import InvalidInput, RunExists, RunFailed, RunNotFound, StepNotFound, TransitionRefused
from redisflow.model.projections import project_run_state


def flaky_flow(broken: set[str], ran: list[str]) -> Workflow[int, object]:
    """a -> b -> d, a -> c -> d; steps named in `broken` raise."""
    flow = Workflow("flaky", input=int)

    def check(name: str) -> None:
        ran.append(name)
        if name in broken:
            raise RuntimeError(f"{name} is broken")

    @flow.step
    async def a(input: int) -> int:
        check("a")
        return input + 1

    @flow.step(retry=Retry(attempts=2, delay="1ms"))
    async def b(a: int) -> int:
        check("b")
        return a * 10

    @flow.step
    async def c(a: int) -> int:
        check("c")
        return a * 100

    @flow.step(export=True)
    async def d(b: int, c: int) -> int:
        check("d")
        return b + c

    return flow


async def types(backend: RedisBackend, run_id: str) -> list[str]:
    return [f"{e['type']} {e.get('stepId', '')}".strip() for e in await backend.load_wire_events(run_id)]


async def test_a_failed_run_is_retried_where_it_stopped(client: Client) -> None:
    broken, ran = {"b"}, []
    flow = flaky_flow(broken, ran)
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1, timeout="1h")
        with pytest.raises(RunFailed):
            await run.result(timeout=5)
        assert ran.count("b") == 2
        broken.clear()
        assert await client.backend.retry_run(run.id, "mended") >= 1
        assert await run.result(timeout=5) == 220
    assert ran.count("a") == 1
    state = await run.status()
    assert (state.status, state.workflow_attempt_number) == ("completed", 2)
    history = await client.backend.load_wire_events(run.id)
    retry = next(event for event in history if event["type"] == "WorkflowRetryStarted")
    assert (retry["workflowAttemptNumber"], retry["previousAttemptNumber"], retry["reason"]) == (2, 1, "mended")
    assert "b" in retry["retriedSteps"]
    again = [e for e in history if e["type"] == "StepStarted" and e["stepId"] == "b"]
    assert [event["attemptNumber"] for event in again] == [1, 2, 3]


async def test_budgets_start_anew_with_a_retry(client: Client) -> None:
    broken, ran = {"b"}, []
    flow = flaky_flow(broken, ran)
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1)
        for attempts in (2, 4):
            with pytest.raises(RunFailed):
                await run.result(timeout=5)
            assert ran.count("b") == attempts
            if attempts == 2:
                await client.backend.retry_run(run.id)


async def test_only_a_failed_run_is_retried(client: Client) -> None:
    flow = flaky_flow(set(), [])
    run = await client.submit(flow, 1)
    with pytest.raises(TransitionRefused, match="pending"):
        await client.backend.retry_run(run.id)
    await run.cancel()
    with pytest.raises(TransitionRefused, match="cancelled"):
        await client.backend.retry_run(run.id)
    with pytest.raises(RunNotFound):
        await client.backend.retry_run("never.was")


async def test_resume_records_and_changes_nothing(client: Client) -> None:
    flow = flaky_flow(set(), [])
    run = await client.submit(flow, 1)
    assert await client.backend.resume_run(run.id) == (0, 4)
    async with Worker(client, [flow]):
        assert await run.result(timeout=5) == 220
    assert (await types(client.backend, run.id)).count("WorkflowResumed") == 1
    with pytest.raises(TransitionRefused, match="completed"):
        await client.backend.resume_run(run.id)


async def test_a_rerun_keeps_what_lies_outside(client: Client) -> None:
    ran: list[str] = []
    flow = flaky_flow(set(), ran)
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1, key="k", priority=3, tags=["eu"], metadata={"who": "me"}, timeout="1h")
        assert await run.result(timeout=5) == 220
        ran.clear()
        again = client.run(await client.backend.rerun_from(run.id, "c"))
        assert await again.result(timeout=5) == 220
    assert sorted(ran) == ["c", "d"]
    parent, child = await run.status(), await again.status()
    assert (child.priority, child.tags, child.metadata, child.timeout) == (3, ("eu",), {"who": "me"}, parent.timeout)
    assert (child.idempotency_key, child.input) == (None, "1")
    lineage = next(e for e in await client.backend.load_wire_events(again.id) if e["type"] == "WorkflowRerunFromStep")
    assert (lineage["parentRunId"], lineage["rerunFromStepId"], lineage["rerunStepIds"]) == (run.id, "c", ["c", "d"])
    assert lineage["versionId"] == lineage["parentVersionId"] == flow.plan.version
    kept = await client.steps(again.id)
    assert kept["a"].end_time == (await client.steps(run.id))["a"].end_time
    assert again.id.partition(".")[0] == run.id.partition(".")[0]


async def test_a_rerun_takes_a_new_input(client: Client) -> None:
    flow = flaky_flow(set(), [])
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1)
        await run.result(timeout=5)
        again = client.run(await client.backend.rerun_from(run.id, "a", input=2))
        assert await again.result(timeout=5) == 330
        more = client.run(await client.backend.rerun_from(again.id, "d"))
        assert await more.result(timeout=5) == 330


async def test_a_rerun_is_refused_with_the_reason(client: Client) -> None:
    flow = flaky_flow(set(), [])
    run = await client.submit(flow, 1)
    with pytest.raises(TransitionRefused, match="has not ended"):
        await client.backend.rerun_from(run.id, "a")
    with pytest.raises(StepNotFound, match="nowhere"):
        await client.backend.rerun_from(run.id, "nowhere")
    with pytest.raises(RunNotFound):
        await client.backend.rerun_from("never.was", "a")


async def test_a_new_input_is_held_to_the_schema_of_the_current_version(client: Client) -> None:
    flow = flaky_flow(set(), [])
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1)
        await run.result(timeout=5)
    before = (await client.runs())[1]
    for refused in ("text", {"a": 1}):
        with pytest.raises(InvalidInput, match="input of workflow 'flaky' is invalid"):
            await client.backend.rerun_from(run.id, "a", input=refused)
        with pytest.raises(InvalidInput):
            await client.rerun(run.id, "a", refused)
    assert (await client.runs())[1] == before
    assert await client.rerun(run.id, "a", 7)


@pytest.mark.parametrize("partitions", [1, 4])
async def test_a_copy_gives_equal_states(settings, partitions: int) -> None:  # type: ignore[no-untyped-def]
    ran: list[str] = []
    flow = flaky_flow({"d"}, ran)
    async with Client(settings=settings.model_copy(update={"partitions": partitions})) as client:
        backend = client.backend
        async with Worker(client, [flow]):
            run = await client.submit(flow, 1, key="k")
            with pytest.raises(RunFailed):
                await run.result(timeout=5)
        for number in range(4):
            target = f"copy{number}.x"
            count = await backend.copy_entire_run("flaky", run.id, target)
            assert count == len(await backend.load_wire_events(run.id))
            assert await types(backend, target) == await types(backend, run.id)
            ours, theirs = await backend.load_step_states(target), await backend.load_step_states(run.id)
            for step, state in ours.items():
                assert state.model_copy(update={"run_id": run.id}) == theirs[step]
            copied = project_run_state(await backend.load_events("flaky", target))
            assert (copied.status, copied.idempotency_key) == ("failed", None)
        with pytest.raises(RunExists):
            await backend.copy_entire_run("flaky", run.id, "copy0.x")
        from tests.conftest import assert_consistent

        await assert_consistent(backend)


async def test_deleted_events_leave_right_keys(client: Client) -> None:
    flow = flaky_flow({"b"}, [])
    backend = client.backend
    async with Worker(client, [flow]):
        run = await client.submit(flow, 1)
        with pytest.raises(RunFailed):
            await run.result(timeout=5)
    assert await backend.delete_workflow_terminal_events("flaky", run.id) == 1
    assert (await run.status()).status == "running"
    assert await backend.delete_step_events("flaky", run.id, ["b"]) > 3
    assert "b" not in await client.steps(run.id)
    assert await backend.client.zcard(backend.keys_of(run.id).failures) == 0
    with pytest.raises(RunNotFound):
        await backend.delete_step_events("flaky", "never.was", ["b"])
    await run.cancel()
