"""`verify`: each kind of damage to a key is found and mended, broken rules of histories are told, live load is no damage."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from redisflow import Client, Reclaimer, Settings, Skip, StepContext, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.types import Submission
from redisflow.codec import pack
from redisflow.model.invariants import RULES
from tests.conftest import TestServer
from tests.flows import (
    DIAMOND,
    SECOND,
    claim,
    complete,
    done,
    fail,
    history,
    pack_entry,
    plan,
    retry,
    scores,
    snapshot,
    status,
    step,
    submit,
    travel,
)

FLOW = plan(step("a", retry=retry(attempts=2)), step("b", "a"), timeout_us=3600 * SECOND)


class Bench:
    """A namespace with a run in each state: queued, running, ended, failed once."""

    def __init__(self, backend: RedisBackend) -> None:
        self.backend = backend
        self.keys = backend.partitions[0]
        self.queued = self.running = self.ended = self.failing = ""

    async def fill(self) -> None:
        await self.backend.register_plan(FLOW)
        self.queued = await submit(self.backend, FLOW, idempotency_key="k", tags=["eu"], input="1")
        self.running = await submit(self.backend, FLOW)
        await claim(self.backend, self.running, "a")
        self.ended = await submit(self.backend, FLOW)
        await complete(self.backend, self.ended, "a", "b")
        self.failing = await submit(self.backend, FLOW)
        done(await fail(self.backend, await claim(self.backend, self.failing, "a")))

    async def check(self) -> list[Any]:
        return [violation async for violation in Verifier(self.backend).check()]


@pytest.fixture
async def bench(backend: RedisBackend) -> Bench:
    made = Bench(backend)
    await made.fill()
    return made


Damage = Callable[[Bench], Awaitable[object]]
DAMAGES: dict[str, tuple[str, Damage]] = {
    "a header": ("hash", lambda b: b.backend.client.hset(b.keys.run(b.ended), "h", _header_of(b))),
    "a step field": ("hash", lambda b: b.backend.client.hdel(b.keys.run(b.running), "s:a")),
    "an output": ("hash", lambda b: b.backend.client.hset(b.keys.run(b.ended), "o:a", "=2")),
    "a field too many": ("hash", lambda b: b.backend.client.hset(b.keys.run(b.queued), "o:z", "=2")),
    "an unreadable field": ("hash", lambda b: b.backend.client.hset(b.keys.run(b.running), "s:a", b"\xff")),
    "a whole hash": ("key", lambda b: b.backend.client.delete(b.keys.run(b.queued))),
    "a queue member lost": ("queue", lambda b: b.backend.client.zrem(b.keys.scheduled("flow", 0), f"{b.queued}|a")),
    "a queue score": ("queue", lambda b: b.backend.client.zadd(b.keys.scheduled("flow", 0), {f"{b.queued}|a": 5})),
    "a queue member too many": (
        "queue", lambda b: b.backend.client.zadd(b.keys.scheduled("flow", 0), {f"{b.ended}|a": 5}),
    ),
    "a queue member of another level": (
        "member", lambda b: b.backend.client.zadd(b.keys.scheduled("flow", 7), {f"{b.queued}|a": 5}),
    ),
    "a queue member of no run": (
        "member", lambda b: b.backend.client.zadd(b.keys.scheduled("flow", 0), {"gone|a": 5}),
    ),
    "a queue member of another queue": (
        "member", lambda b: b.backend.client.zadd(b.keys.scheduled("other", 0), {f"{b.queued}|a": 5}),
    ),
    "a level": ("levels", lambda b: b.backend.client.zrem(b.keys.levels, "flow:0")),
    "a level of nothing": ("levels", lambda b: b.backend.client.zadd(b.keys.levels, {"ghost:3": 1})),
    "a lease lost": ("running", lambda b: b.backend.client.zrem(b.keys.running, f"{b.running}|a")),
    "a lease too many": ("running", lambda b: b.backend.client.zadd(b.keys.running, {f"{b.queued}|a": 5})),
    "a lease of no run": ("member", lambda b: b.backend.client.zadd(b.keys.running, {"gone|a": 5})),
    "a lease of an unknown step": ("member", lambda b: b.backend.client.zadd(b.keys.running, {f"{b.queued}|z": 5})),
    "an index lost": ("index", lambda b: b.backend.client.zrem(b.keys.index("flow", "completed"), b.ended)),
    "an index too many": ("index", lambda b: b.backend.client.zadd(b.keys.index("flow", "failed"), {b.ended: 1})),
    "an index of another workflow": (
        "member", lambda b: b.backend.client.zadd(b.keys.index("other", "failed"), {b.ended: 1}),
    ),
    "an index of no run": (
        "member", lambda b: b.backend.client.zadd(b.keys.index("flow", "completed"), {"gone": 1}),
    ),
    "a tag lost": ("index", lambda b: b.backend.client.zrem(b.keys.tag("flow", "eu"), b.queued)),
    "a tag too many": ("member", lambda b: b.backend.client.zadd(b.keys.tag("flow", "us"), {b.queued: 1})),
    "retention lost": ("retention", lambda b: b.backend.client.zrem(b.keys.ended, b.ended)),
    "retention of a live run": ("retention", lambda b: b.backend.client.zadd(b.keys.ended, {b.queued: 1})),
    "retention of no run": ("member", lambda b: b.backend.client.zadd(b.keys.ended, {"gone": 1})),
    "a deadline lost": ("deadlines", lambda b: b.backend.client.zrem(b.keys.deadlines, f"run:{b.queued}")),
    "a deadline of an ended run": (
        "deadlines", lambda b: b.backend.client.zadd(b.keys.deadlines, {f"run:{b.ended}": 1}),
    ),
    "a deadline of no run": ("member", lambda b: b.backend.client.zadd(b.keys.deadlines, {"run:gone": 1})),
    "a failure lost": ("failures", lambda b: b.backend.client.delete(b.keys.failures)),
    "a failure too many": ("member", lambda b: b.backend.client.zadd(b.keys.failures, {f"{b.ended}|1-0": 1})),
    "a failure of no run": ("member", lambda b: b.backend.client.zadd(b.keys.failures, {"gone|1-0": 1})),
    "work of no run": ("member", lambda b: b.backend.client.zadd(b.keys.expand, {"gone": 0})),
    "a record lost": ("idempotency", lambda b: b.backend.client.delete(_record(b))),
    "a record of another": ("idempotency", lambda b: b.backend.client.set(_record(b), b.ended)),
    "a record of no run": ("key", lambda b: b.backend.client.set(b.keys.idempotency("ab" * 32), "gone")),
    "a hash without events": ("key", lambda b: b.backend.client.hset(b.keys.run("gone"), "h", "x")),
}  # fmt: skip


def _record(bench: Bench) -> str:
    from redisflow.backend import keys as k

    return bench.keys.idempotency(k.key_hash("k"))


def _header_of(bench: Bench) -> bytes:
    return b"r" + b"-" * 50


@pytest.mark.parametrize("name", DAMAGES)
async def test_damage_is_found_and_mended(bench: Bench, name: str) -> None:
    assert await bench.check() == []
    before = await snapshot(bench.backend)
    rule, damage = DAMAGES[name]
    await damage(bench)
    found = await bench.check()
    assert rule in {violation.rule for violation in found}, found
    mended = await Verifier(bench.backend).repair(found)
    assert mended
    assert all(mended.values())
    assert await bench.check() == []
    after = (await snapshot(bench.backend)).keys() - {
        bench.keys.expand.encode()
    }  # a mended run is looked over once more
    assert after == before.keys()


async def test_a_stray_key_is_told_and_left(bench: Bench) -> None:
    backend = bench.backend
    strays = [bench.keys.prefix + "mine", bench.keys.plan(9), bench.keys.once("x"), bench.keys.never]
    strays += [bench.keys.worker("w.1"), f"{{{backend.namespace}}}:mine"]
    for key in strays:
        await backend.client.set(key, "x")
    await backend.client.set(bench.keys.once("y"), "x", ex=60)
    try:
        found = await bench.check()
        assert {violation.rule for violation in found} == {"key"}
        assert sorted(violation.message.split()[0] for violation in found) == sorted(strays)
        assert await Verifier(backend).repair(found) == {}
        assert await backend.client.exists(*strays) == len(strays)
    finally:
        await backend.client.delete(*strays)


async def test_a_run_in_a_foreign_partition_is_told_and_left(settings: Settings) -> None:
    backend = RedisBackend(settings.model_copy(update={"partitions": 2}))
    await backend.initialize()
    await backend.register_plan(FLOW)
    run_id = await submit(backend, FLOW)
    home = backend.partition(run_id)
    away = backend.partitions[1 - home]
    await backend.client.copy(backend.partitions[home].run(run_id), away.run(run_id))
    found = [violation async for violation in Verifier(backend).check()]
    assert [violation.message for violation in found] == [f"{away.run(run_id)} is not in the run's own partition"]
    assert await Verifier(backend).repair(found) == {}
    await backend.close()


async def test_the_record_of_a_key_elsewhere_is_set_again(settings: Settings) -> None:
    from redisflow.backend import keys as k

    backend = RedisBackend(settings.model_copy(update={"partitions": 8}))
    await backend.initialize()
    await backend.register_plan(FLOW)
    hashed = k.key_hash("k")
    home = backend.partition(k.route_of_key(hashed))
    run_id = next(name for name in map(str, range(100)) if backend.partition(name) != home)
    await backend.submit(FLOW, [Submission(run_id=run_id, idempotency_key="k")])
    record = backend.partitions[home].idempotency(hashed)
    await backend.client.delete(record)
    found = [violation async for violation in Verifier(backend).check()]
    assert [violation.rule for violation in found] == ["idempotency"]
    assert await Verifier(backend).repair(found) == {run_id: True}
    assert await backend.client.get(record) == f">{run_id}".encode()
    assert [violation async for violation in Verifier(backend).check()] == []
    await backend.close()


async def test_a_run_that_moved_is_not_repaired(bench: Bench) -> None:
    backend = bench.backend
    key = bench.keys.events(bench.queued)
    last = (await backend.client.xrevrange(key, count=1))[0][0]
    await claim(backend, bench.queued, "a")
    before = await snapshot(backend)
    reply = await backend.call("repair", 0, [], run_id=bench.queued, last_id=last)
    assert reply[0] == 2  # STALE
    assert await snapshot(backend) == before


async def test_a_repair_keeps_the_last_heartbeat(bench: Bench) -> None:
    """Else the reclaimer takes a step from a living worker, because its run was repaired."""
    backend, member = bench.backend, f"{bench.running}|a"
    beat = (await scores(backend, bench.keys.running))[member] + 50 * SECOND
    await backend.client.zadd(bench.keys.running, {member: beat})
    await backend.client.hset(bench.keys.run(bench.running), "o:z", "=1")
    assert await Verifier(backend).repair(await bench.check()) == {bench.running: True}
    assert (await scores(backend, bench.keys.running))[member] == beat


async def test_a_broken_history_is_told_with_its_events_and_left(bench: Bench) -> None:
    backend = bench.backend
    run_id = await submit(backend, DIAMOND)
    ran = await claim(backend, run_id, "a")
    done(await backend.complete_step(ran, "1"))
    events = bench.keys.events(run_id)
    entry = pack_entry(("StepCompleted", "a", pack({"a": 1, "d": 1, "x": False}), "1"))
    stream_id = await backend.client.execute_command("XADD", events, "*", *entry)
    try:
        found = await Verifier(backend).check_run(run_id)
        fence = [violation for violation in found if violation.rule == "fence"]
        assert len(fence) == 1
        millis, seq = stream_id.decode().split("-")
        assert fence[0].event_ids[-1] == str(int(millis) + int(seq))
        assert await Verifier(backend).repair(fence) == {}
        assert (await history(backend, run_id))[-1] == "StepCompleted a"
    finally:
        await backend.client.delete(events, bench.keys.run(run_id))
        await Verifier(backend).repair([v for v in await bench.check() if v.rule not in RULES])


async def test_what_a_caller_saved_copied_or_cut_is_held_to_its_keys_only(bench: Bench) -> None:
    backend = bench.backend
    await backend.save_run_submitted("flow", "told", version_id="v", available_at=1, priority=0, has_input_schema=False)
    await backend.save_step_start("flow", "told", "a", "w", dependencies=[], attempt_number=7)
    await backend.copy_entire_run("flow", bench.ended, "copied")
    await backend.delete_step_events("flow", bench.ended, ["b"])
    verifier = Verifier(backend)
    assert [violation async for violation in verifier.check()] == []
    assert (verifier.runs_checked, verifier.runs_told) == (6, 3)
    await backend.client.zrem(bench.keys.running, "told|a")
    found = await bench.check()
    assert [violation.rule for violation in found] == ["running"]
    assert await Verifier(backend).repair(found) == {"told": True}


async def test_a_copy_reads_as_its_source(bench: Bench) -> None:
    backend = bench.backend
    done(await backend.complete_step(await claim(backend, bench.failing, "a"), "1"))
    await backend.copy_entire_run("flow", bench.failing, "copy")
    left, right = [await backend.load_wire_events(run_id) for run_id in (bench.failing, "copy")]
    own = {"eventId", "runId", "idempotencyKey"}
    assert [{k: v for k, v in event.items() if k not in own} for event in right] == [
        {k: v for k, v in event.items() if k not in own} for event in left
    ]


async def test_a_rerun_of_a_run_that_had_failed_before_can_complete(backend: RedisBackend) -> None:
    """Its kept steps bring the failures of their past along, which are none of the new run."""
    await backend.register_plan(FLOW)
    run_id = await submit(backend, FLOW)
    for _ in range(2):
        done(await fail(backend, await claim(backend, run_id, "a")))
    assert await status(backend, run_id) == "failed"
    await backend.retry_run(run_id)
    await complete(backend, run_id, "a", "b")
    again = await backend.rerun_from(run_id, "b")
    await complete(backend, again, "b")
    assert await status(backend, again) == "completed"


async def test_live_load_is_no_damage(server: TestServer, settings: Settings) -> None:
    flow = Workflow("lively", input=int, output=int)

    @flow.step(retry=3)
    async def first(number: int, ctx: StepContext) -> int:
        if number % 5 == 0 and ctx.attempt < 3:
            raise ValueError("again")
        await asyncio.sleep(0)
        return number

    @flow.step
    async def second(first: int) -> int:
        if first % 7 == 0:
            raise Skip("no need")
        return first

    @flow.step(export=True)
    async def third(first: int, second: int = -1) -> int:
        if first % 11 == 0:
            raise ValueError("for good")
        return second

    quick = settings.model_copy(update={"retention": 200_000, "reclaim_interval": 20_000, "stale_after": 2_000_000})
    async with Client(settings=quick) as client:
        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        async with Worker(client, [flow], concurrency=50):
            verifier, checks = Verifier(client.backend), 0

            async def produce() -> None:
                for first in range(0, 1500, 50):
                    runs = await client.submit_many(flow, range(first, first + 50))
                    for run in runs[::10]:
                        await run.cancel()
                    for run in runs[::7]:
                        if (await client.backend.status_of([run.id]))[0] == "failed":
                            await client.retry(run.id)

            load = asyncio.create_task(produce())
            while not load.done() or checks < 3:
                assert [violation async for violation in verifier.check()] == []
                checks += 1
            await load
        sidecar.stop()
        await upkeep
        assert verifier.runs_checked > 500
        assert [violation async for violation in Verifier(client.backend).check()] == []


async def test_verify_pages_through_a_large_set(backend: RedisBackend) -> None:
    await backend.register_plan(FLOW)
    runs = await backend.submit(FLOW, [Submission() for _ in range(1200)])
    keys = backend.partitions[0]
    odd = [run.run_id for run in runs[::300]]
    await backend.client.zadd(keys.scheduled("flow", 3), {f"{run_id}|a": 5 for run_id in odd})
    found = [violation async for violation in Verifier(backend).check()]
    assert sorted(v.run_id for v in found if v.rule == "member") == sorted(odd)
    assert set((await Verifier(backend).repair(found)).values()) == {True}
    await travel(backend, SECOND)


async def test_a_rerun_beside_a_kept_skip_goes_on_to_its_end(backend: RedisBackend) -> None:
    """`last` needs what was skipped, so it is skipped again; else the new run would wait for it for ever."""
    graph = plan(step("a"), step("left", "a"), step("right", "a"), step("last", "left", "right"))
    await backend.register_plan(graph)
    run_id = await submit(backend, graph)
    await complete(backend, run_id, "a", "left")
    done(await backend.skip_step(await claim(backend, run_id, "right"), "no need"))
    assert await status(backend, run_id) == "completed"
    beside = await backend.rerun_from(run_id, "left")
    await complete(backend, beside, "left")
    below = await backend.rerun_from(run_id, "last")
    for again in (beside, below):
        assert await status(backend, again) == "completed"
        assert "StepSkipped last" in await history(backend, again)


async def test_a_retry_takes_up_a_cascade_that_the_end_cut_off(backend: RedisBackend) -> None:
    wide = plan(step("a"), step("b"), *(step(f"s{n}", "a") for n in range(1200)))
    await backend.register_plan(wide)
    run_id = await submit(backend, wide)
    first, second = await claim(backend, run_id, "a"), await claim(backend, run_id, "b")
    done(await backend.skip_step(first, "no need"))
    done(await fail(backend, second))
    assert await status(backend, run_id) == "failed"
    await backend.retry_run(run_id)
    await complete(backend, run_id, "b")
    for _ in range(10):
        await backend.reclaim_round(0, threshold_us=3600 * SECOND, reclaimed_by="r")
    assert await status(backend, run_id) == "completed"
