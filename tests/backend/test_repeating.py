"""A call whose answer was lost is sent again under its request id: the same answer, and nothing changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.steps import failure_parts, skip_data
from redisflow.backend.replies import Reply
from redisflow.codec import pack
from redisflow.model.errors import NamespaceLost
from tests.flows import (
    CHAIN,
    ERROR,
    ONE,
    PRINTS,
    SECOND,
    claim,
    history,
    plan,
    retry,
    snapshot,
    start,
    status,
    step,
    submit,
    travel,
)

Ask = Callable[[], Awaitable[Any]]
WORKFLOW = plan(step("a", retry=retry(attempts=2)), step("b", "a"), timeout_us=600 * SECOND)


def request(backend: RedisBackend, script_name: str, rest: list[Any] | None = None, **named: Any) -> Ask:
    """A call with a request id that does not change."""
    script = backend.scripts[script_name]
    argv = script.pack(rest or (), epoch=backend.epoch, request=f"same-{script_name}", **named)
    return lambda: backend.server.script(script, backend.partitions[0], argv)


async def prepare(backend: RedisBackend, name: str) -> Ask:
    """A state in which the script has something to do, and the call."""
    if name == "submit":
        number = await backend.plan_number(WORKFLOW, 0)
        return request(backend, name, ["r1", pack({"pl": number}), "1", "r2", pack({"pl": number}), ""])
    if name == "claim":
        run_id = await submit(backend, WORKFLOW)
        return request(backend, name, run_id=run_id, step="a", body=pack({"wi": "w1"})[1:], pairs_in_body=1)
    if name == "append":
        run_id = await submit(backend, WORKFLOW)
        return request(backend, name, [run_id, "x.note", "", pack({"note": "hi"}), "", ""])
    claimed = await start(backend, WORKFLOW)
    if name == "cancel":
        return request(backend, name, run_id=claimed.run_id, reason=b"")
    if name == "reclaim":
        return request(backend, name, reclaimer="r1", threshold=0, tick=0, draw="0.5")
    if name == "sweep":
        await travel(backend, 700 * SECOND)
        return request(backend, name, retention=0)
    data, payload, how = {
        "complete": (pack({"a": 1, "d": 0, "x": False}), b"1", ""),
        "skip": (skip_data(1, "no", None), b"", ""),
        "fail": failure_parts(1, ERROR, PRINTS, 0, reason="execution-error"),
        "release": (b"", b"", "drain"),
    }[name]
    return request(
        backend,
        name,
        run_id=claimed.run_id,
        step="a",
        lease=claimed.lease,
        data=data,
        payload=payload,
        how=how,
    )


REPEATABLE = [
    "submit",
    "claim",
    "append",
    "complete",
    "skip",
    "fail",
    "release",
    "cancel",
    "reclaim",
    "sweep",
]


@pytest.mark.parametrize("name", REPEATABLE)
async def test_a_repeat_gives_the_same_answer(backend: RedisBackend, name: str) -> None:
    ask = await prepare(backend, name)
    before = await snapshot(backend)
    first = await ask()
    assert first[0] in (Reply.OK, [Reply.OK])
    after = await snapshot(backend)
    assert after != before
    for _ in range(2):
        assert await ask() == first
        assert await snapshot(backend) == after


async def lone_submit(backend: RedisBackend, run_id: str) -> Ask:
    """A submit of a run whose id was made for it: no request id, since the run tells a repeat."""
    number = await backend.plan_number(WORKFLOW, 0)
    script = backend.scripts["submit"]
    argv = script.pack([run_id, pack({"pl": number}), "1"], epoch=backend.epoch, request="")
    return lambda: backend.server.script(script, backend.partitions[0], argv)


async def test_a_repeated_lone_submit_finds_its_run(backend: RedisBackend) -> None:
    ask = await lone_submit(backend, "fresh.1")
    assert await ask() == [Reply.OK, [Reply.OK]]
    after = await snapshot(backend)
    assert not [key for key in after if b":once:" in key]
    assert await ask() == [Reply.OK, [Reply.OK]]
    assert await snapshot(backend) == after


async def test_a_repeated_lone_submit_does_not_bring_back_a_deleted_run(backend: RedisBackend) -> None:
    ask = await lone_submit(backend, "fresh.1")
    await ask()
    await backend.cancel_run("fresh.1")
    assert await backend.delete_run("fresh.1")
    assert await ask() == [Reply.OK, [Reply.OK]]
    assert await backend.get_run("fresh.1") is None
    assert 899_000 < await backend.client.pttl(backend.partitions[0].once("fresh.1")) <= 900_000


async def test_an_old_run_is_deleted_without_a_trace(backend: RedisBackend) -> None:
    run_id = await submit(backend, WORKFLOW)
    await backend.cancel_run(run_id)
    await travel(backend, 901 * SECOND)
    assert await backend.delete_run(run_id)
    assert not await backend.client.exists(backend.partitions[0].once(run_id))


@pytest.mark.parametrize("name", REPEATABLE)
async def test_repeats_at_the_same_time(backend: RedisBackend, name: str) -> None:
    ask = await prepare(backend, name)
    answers = await asyncio.gather(*(ask() for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)


def test_all_transitions_are_repeatable(backend: RedisBackend) -> None:
    """Turns have a number, heartbeats, deletions and repairs may be done twice, registering is looked up."""
    named = {name for name, script in backend.scripts.items() if ("request", "string") in script.arguments}
    assert named <= set(REPEATABLE) | {"retry", "rerun", "resume", "erase", "record"}
    assert set(REPEATABLE) <= named


async def test_a_repeat_is_answered_whatever_happened_since(backend: RedisBackend) -> None:
    ask = await prepare(backend, "complete")
    first = await ask()
    ((run_id, *_),) = [(state.run_id,) for state in (await backend.list_runs("flow"))[0]]
    await backend.complete_step(await claim(backend, run_id, "b"), "2")
    await backend.delete_run(run_id)
    assert await ask() == first
    assert await status(backend, run_id) == ""


async def test_a_claim_repeated_after_its_step_ended_is_stale(backend: RedisBackend) -> None:
    """A late repeat must not hand out work that is done."""
    run_id = await submit(backend, CHAIN)
    ask = request(backend, "claim", run_id=run_id, step="a", body=pack({"wi": "w1"})[1:], pairs_in_body=1)
    reply = await ask()
    claimed = await backend.resolve_claim(0, reply[1], reply[2])
    await backend.complete_step(claimed, "1")
    before = await snapshot(backend)
    assert (await ask())[0] == Reply.STALE
    assert await snapshot(backend) == before


async def test_kept_replies_outlive_the_retry_deadline(backend: RedisBackend) -> None:
    for name in REPEATABLE:
        ask = await prepare(backend, name)
        await ask()
        key = backend.partitions[0].once(f"same-{name}")
        assert 600 <= await backend.client.ttl(key) <= 3600, name


async def test_two_calls_with_requests_of_their_own_are_two_calls(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    first = await claim(backend, run_id, "a")
    await backend.release_step(first)
    assert (await backend.release_step(first)).reply is Reply.ALREADY
    assert (await history(backend, run_id)).count("StepScheduled a") == 2


async def test_another_life_of_the_server_is_told_loudly(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    before, epoch = await snapshot(backend), backend.epoch
    backend.epoch = "of another life"
    with pytest.raises(NamespaceLost):
        await backend.claim_step(run_id, "a", "w1")
    for name, script in backend.scripts.items():
        argv = script.pack(
            [], epoch="other", **{a: 0 for a, kind in script.arguments if kind != "list" and a != "epoch"}
        )
        assert await backend.server.call_once(script, backend.partitions[0], argv) == [Reply.EPOCH], name
    backend.epoch = epoch
    assert await snapshot(backend) == before


async def test_time_goes_on_after_a_failover_to_a_clock_behind(backend: RedisBackend) -> None:
    run_id = await submit(backend, ONE)
    meta = backend.partitions[0].meta
    ahead = int(await backend.client.hget(meta, "clock")) + 100 * SECOND  # type: ignore[misc,arg-type]
    await backend.client.hset(meta, "clock", ahead)  # type: ignore[misc]
    claimed = await claim(backend, run_id, "a")
    assert claimed.lease > ahead
    skew = int(await backend.client.hget(meta, "skew"))  # type: ignore[misc,arg-type]
    assert 90 * SECOND < skew <= 100 * SECOND
    await backend.complete_step(claimed, "1")
    clock = int(await backend.client.hget(meta, "clock"))  # type: ignore[misc,arg-type]
    assert ahead < clock < ahead + 10 * SECOND
