"""claim: scheduled and due to running, for exactly one of any number of callers."""

from __future__ import annotations

import asyncio

from redisflow.backend.redis import RedisBackend
from tests.flows import (
    CHAIN,
    DIAMOND,
    ONE,
    PAIR,
    claim,
    complete,
    field,
    header,
    history,
    plan,
    scores,
    snapshot,
    start,
    status,
    statuses,
    step,
    submit,
    typed,
)


async def test_the_first_claim_starts_the_run(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR, input="7")
    claimed = await backend.claim_step(run_id, "a", "w1", slot_index=3, worker_concurrency=8)
    assert claimed is not None
    assert (claimed.attempt_number, claimed.input, dict(claimed.outputs)) == (1, "7", {})
    assert (await history(backend, run_id))[3:] == ["WorkflowStarted", "StepStarted a"]
    run_started, step_started = (await typed(backend, run_id))[3:]
    assert (run_started.workflow_attempt_number, run_started.has_input, run_started.has_input_schema) == (
        1,
        True,
        False,
    )
    assert run_started.version_id == PAIR.version
    assert (step_started.worker_id, step_started.slot_index, step_started.worker_concurrency) == ("w1", 3, 8)
    assert (step_started.attempt_number, step_started.dependencies) == (1, ())
    assert await statuses(backend, run_id) == {"a": "running", "b": "scheduled"}
    state = await backend.get_run(run_id)
    assert state is not None
    assert (state.status, state.started_at) == ("running", run_started.timestamp_us)


async def test_derived_keys_of_a_running_step(backend: RedisBackend) -> None:
    claimed = await start(backend, ONE)
    keys = backend.partitions[0]
    assert await scores(backend, keys.running) == {f"{claimed.run_id}|a": claimed.lease}
    assert await scores(backend, keys.scheduled("flow", 0)) == {}
    assert await scores(backend, keys.levels) == {}
    created = (await header(backend, claimed.run_id)).created
    assert await scores(backend, keys.index("flow", "running")) == {claimed.run_id: created}
    assert await scores(backend, keys.index("flow", "pending")) == {}
    found = await field(backend, claimed.run_id, "a")
    assert (found.status, found.lease, found.ended, found.kind) == ("r", claimed.lease, 0, "-")


async def test_the_second_claim_does_not_start_the_run_again(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await claim(backend, run_id, "b")
    await claim(backend, run_id, "a")
    assert (await history(backend, run_id))[3:] == ["WorkflowStarted", "StepStarted b", "StepStarted a"]


async def test_a_schema_is_validated_at_the_start(backend: RedisBackend) -> None:
    declared = plan(step("a"), input_schema={"type": "integer"})
    claimed = await start(backend, declared, input="1")
    assert (await history(backend, claimed.run_id))[2:] == [
        "WorkflowStarted",
        "WorkflowInputValidation",
        "StepStarted a",
    ]
    submitted, _, started, validated, _ = await typed(backend, claimed.run_id)
    assert submitted.has_input_schema
    assert started.has_input_schema
    assert (validated.has_schema, validated.success, validated.workflow_attempt_number) == (True, True, 1)


async def test_a_claim_brings_the_outputs_of_its_dependencies(backend: RedisBackend) -> None:
    large = '"' + "x" * 5000 + '"'
    run_id = await submit(backend, DIAMOND, input=large)
    await backend.complete_step(await claim(backend, run_id, "a"), large)
    await complete(backend, run_id, "b")
    await backend.complete_step(await claim(backend, run_id, "c"), "null")
    claimed = await claim(backend, run_id, "d")
    assert claimed.input == large
    assert dict(claimed.outputs) == {"b": '"b"', "c": "null"}
    started = (await typed(backend, run_id, "StepStarted"))[-1]
    assert started.dependencies == ("b", "c")


async def test_large_payloads_are_claimed_whole(backend: RedisBackend) -> None:
    """What goes over the budget of a reply is read from the stream."""
    large = '"' + "x" * 1_000_000 + '"'
    names = [f"s{i}" for i in range(6)]
    run_id = await submit(backend, plan(*(step(name) for name in names), step("last", *names)))
    for name in names:
        await backend.complete_step(await claim(backend, run_id, name), large)
    claimed = await claim(backend, run_id, "last")
    assert list(claimed.outputs) == names
    assert set(claimed.outputs.values()) == {large}


async def test_one_of_fifty_claimers_wins(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    claims = await asyncio.gather(*(backend.claim_step(run_id, "a", f"w{i}") for i in range(50)))
    won = [found for found in claims if found]
    assert len(won) == 1
    assert (await history(backend, run_id)).count("StepStarted a") == 1
    assert (await field(backend, run_id, "a")).lease == won[0].lease


async def test_what_is_not_scheduled_cannot_be_claimed(backend: RedisBackend) -> None:
    run_id = await submit(backend, CHAIN)
    claimed = await claim(backend, run_id, "a")
    before = await snapshot(backend)
    for run, name in ((run_id, "a"), (run_id, "b"), (run_id, "no-such-step"), ("no-such-run", "a")):
        assert await backend.claim_step(run, name, "w2") is None
    assert await snapshot(backend) == before
    await backend.complete_step(claimed, "1")
    assert await backend.claim_step(run_id, "a", "w2") is None


async def test_an_ended_run_cannot_be_claimed(backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await backend.cancel_run(run_id)
    before = await snapshot(backend)
    assert await backend.claim_step(run_id, "a", "w1") is None
    assert await snapshot(backend) == before
    assert await status(backend, run_id) == "cancelled"


async def test_leases_are_unique_and_rise(backend: RedisBackend) -> None:
    runs = [await submit(backend, ONE) for _ in range(20)]
    claims = await asyncio.gather(*(claim(backend, run_id, "a") for run_id in runs))
    assert len({found.lease for found in claims}) == 20
    for found in claims:
        started = (await typed(backend, found.run_id, "StepStarted"))[0]
        assert 0 <= int(started.event_id) - found.lease <= 1  # the sequence in its call
