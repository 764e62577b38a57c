"""An answer lost after the server acted: the call is repeated, and neither loses nor doubles anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from redisflow import Client, Settings, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.purge import purge
from redisflow.backend.redis.transfer import export_runs
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim, Submission
from tests.conftest import TestServer, assert_consistent, eventually
from tests.faults.proxy import CUT, DROP, PASS, Nth, Proxy

flow = Workflow("fragile", input=int, output=int)


@flow.step(retry=3)
async def first(number: int) -> int:
    return number + 1


@flow.step(export=True)
async def second(first: int) -> int:
    return first * 2


ERROR = {"name": "ValueError", "message": "no"}
HASHES = ["a" * 40] * 5


@pytest.fixture
async def proxy(server: TestServer) -> AsyncIterator[Proxy]:
    scripts = server.client()
    from redisflow.backend.scripts import load_scripts

    scripts.function_load(load_scripts()["turn"].library.text, replace=True)  # so that each call is one FCALL
    scripts.close()
    async with Proxy(server.socket, Path(server.folder) / "proxy.sock") as running:
        yield running


@pytest.fixture
def through(settings: Settings, proxy: Proxy) -> Settings:
    """Settings that lead through the proxy."""
    return settings.model_copy(update={"url": proxy.url})


class Bench:
    """A backend behind the proxy, with the one call under test."""

    def __init__(self, backend: RedisBackend, proxy: Proxy) -> None:
        self.backend = backend
        self.proxy = proxy

    async def submitted(self) -> str:
        return (await self.backend.submit(flow.plan, [Submission(input="1")]))[0].run_id

    async def claimed(self) -> Claim:
        claim = await self.backend.claim_step(await self.submitted(), "first", "w.1")
        assert claim is not None
        return claim

    async def types(self, run_id: str) -> Counter[str]:
        return Counter(event["type"] for event in await self.backend.load_wire_events(run_id))

    async def losing(self, script: str, call: Callable[[], Awaitable[Any]], verdict: str) -> Any:
        """Make a call whose first answer is lost."""
        before = self.proxy.dropped
        self.proxy.rule = Nth([self.backend.scripts[script].function], verdict, times=1)
        try:
            return await call()
        finally:
            self.proxy.rule = lambda _: PASS
            assert self.proxy.dropped == before + 1


@pytest.fixture
async def bench(through: Settings, proxy: Proxy) -> AsyncIterator[Bench]:
    backend = RedisBackend(through)
    await backend.initialize()
    await backend.register_plan(flow.plan)
    yield Bench(backend, proxy)
    await assert_consistent(backend)
    await backend.close()


lossy = pytest.mark.parametrize("verdict", [DROP, CUT])


@lossy
async def test_submit(bench: Bench, verdict: str) -> None:
    backend = bench.backend
    items = [Submission(input=str(n), idempotency_key=f"k{n}" if n % 2 else None) for n in range(10)]
    results = await bench.losing("submit", lambda: backend.submit(flow.plan, items), verdict)
    assert all(result.is_new for result in results)
    assert (await backend.list_runs())[1] == 10


@lossy
async def test_lone_submit(bench: Bench, verdict: str) -> None:
    async with Client(settings=bench.backend.settings) as client:
        run = await bench.losing("submit", lambda: client.submit(flow, 1), verdict)
    assert run.is_new
    assert (await bench.backend.list_runs())[1] == 1
    assert (await bench.types(run.id))["RunSubmitted"] == 1


@lossy
async def test_submit_of_an_id_of_ones_own(bench: Bench, verdict: str) -> None:
    backend = bench.backend
    results = await bench.losing(
        "submit", lambda: backend.submit(flow.plan, [Submission(input="1", run_id="mine")]), verdict
    )
    assert [(result.run_id, result.is_new) for result in results] == [("mine", True)]


@lossy
async def test_register(bench: Bench, verdict: str) -> None:
    other = Workflow("other")

    @other.step
    async def touch() -> None: ...

    number = await bench.losing("register", lambda: bench.backend.plan_number(other.plan, 0), verdict)
    assert (await bench.backend.plan_info(0, number)).version == other.plan.version


@lossy
async def test_claim(bench: Bench, verdict: str) -> None:
    run_id = await bench.submitted()
    claim = await bench.losing("claim", lambda: bench.backend.claim_step(run_id, "first", "w.1"), verdict)
    assert (claim.attempt_number, claim.input) == (1, "1")
    assert (await bench.types(run_id))["StepStarted"] == 1
    assert (await bench.backend.complete_step(claim, "2")).reply == Reply.OK


@lossy
@pytest.mark.parametrize("name", ["complete", "fail", "skip", "release"])
async def test_outcomes(bench: Bench, name: str, verdict: str) -> None:
    backend, claim = bench.backend, await bench.claimed()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "complete": lambda: backend.complete_step(claim, "2"),
        "fail": lambda: backend.fail_step(claim, ERROR, HASHES),
        "skip": lambda: backend.skip_step(claim, "why not"),
        "release": lambda: backend.release_step(claim),
    }
    settled = await bench.losing(name, calls[name], verdict)
    assert settled.recorded
    types = await bench.types(claim.run_id)
    assert types["StepStarted"] == 1
    expected = {
        "complete": {"StepCompleted": 1, "StepScheduled": 2},
        "fail": {"StepFailed": 1, "StepRetrying": 1, "StepScheduled": 2},
        "skip": {"StepSkipped": 2, "StepScheduled": 1, "WorkflowCompleted": 1},
        "release": {"StepScheduled": 2},
    }[name]  # fmt: skip
    assert {kind: types[kind] for kind in expected} == expected


@lossy
async def test_cancel(bench: Bench, verdict: str) -> None:
    run_id = await bench.submitted()
    result = await bench.losing("cancel", lambda: bench.backend.cancel_run(run_id, "why"), verdict)
    assert result.cancelled
    assert (await bench.types(run_id))["WorkflowCancelled"] == 1


@lossy
async def test_delete(bench: Bench, verdict: str) -> None:
    run_id = await bench.submitted()
    await bench.backend.cancel_run(run_id)
    assert await bench.losing("delete", lambda: bench.backend.delete_run(run_id), verdict) in (True, False)
    assert await bench.backend.get_run(run_id) is None


@lossy
async def test_reclaim(bench: Bench, verdict: str) -> None:
    claim = await bench.claimed()

    async def reclaim() -> Any:
        return await bench.backend.reclaim_round(0, threshold_us=0, reclaimed_by="tester")

    taken = await bench.losing("reclaim", reclaim, verdict)
    assert [step.run_id for step in taken.reclaimed] == [claim.run_id]
    assert (await bench.types(claim.run_id))["StepReclaimed"] == 1
    refused = await bench.backend.complete_step(claim, "2")
    assert (refused.reply, refused.detail) == (Reply.CONFLICT, "reclaimed")


@lossy
async def test_sweep(bench: Bench, verdict: str) -> None:
    backend = bench.backend
    run_id = (await backend.submit(flow.plan, [Submission(input="1", timeout_us=1)]))[0].run_id
    await bench.losing("sweep", lambda: backend.sweep_round(0, retention_us=10**12), verdict)
    assert (await bench.types(run_id))["WorkflowFailed"] == 1


@lossy
async def test_wait(bench: Bench, verdict: str) -> None:
    run_id = await bench.submitted()
    assert await bench.losing("wait", lambda: bench.backend.status_of([run_id]), verdict) == ["pending"]


@pytest.mark.parametrize(("verdict", "every"), [(DROP, 3), (DROP, 2), (CUT, 4)])
async def test_a_worker_that_loses_every_few_answers_records_everything_once(
    through: Settings, proxy: Proxy, verdict: str, every: int
) -> None:
    async with Client(settings=through) as client:
        async with Worker(client, [flow], concurrency=20):
            proxy.rule = Nth([client.backend.scripts["turn"].function], verdict, every=every)
            runs = await client.submit_many(flow, range(300))
            ended = await asyncio.gather(*(run.result(timeout=60) for run in runs))
            proxy.rule = lambda _: PASS
        assert ended == [2 * (number + 1) for number in range(300)]
        assert proxy.dropped > 5
        for run in runs:
            types = Counter(event["type"] for event in await client.backend.load_wire_events(run.id))
            assert (types["StepStarted"], types["StepCompleted"], types["WorkflowCompleted"]) == (2, 2, 1)
        await assert_consistent(client.backend)


async def test_every_connection_cut_again_and_again(through: Settings, proxy: Proxy) -> None:
    """Submits, turns, heartbeats, subscriptions and waits all lose their connections under load."""
    settings = through.model_copy(update={"heartbeat_interval": 20_000})
    async with Client(settings=settings) as client:
        async with Worker(client, [flow], concurrency=20):
            runs = []
            for batch in range(10):
                runs += await client.submit_many(flow, range(batch * 20, batch * 20 + 20))
                proxy.cut()
            waiting = asyncio.gather(*(run.result(timeout=60) for run in runs))
            while not waiting.done():
                proxy.cut()
                await asyncio.sleep(0.05)
            assert await waiting == [2 * (number + 1) for number in range(200)]
        for run in runs:
            types = Counter(event["type"] for event in await client.backend.load_wire_events(run.id))
            assert (types["StepCompleted"], types["WorkflowCompleted"]) == (2, 1)
        await assert_consistent(client.backend)


async def test_an_outcome_survives_the_worst_moment(through: Settings, proxy: Proxy) -> None:
    """The answer to the turn that ends a step is lost three times in a row."""
    async with Client(settings=through) as client:
        async with Worker(client, [flow]) as worker:
            await eventually(lambda: worker.asleep)
            proxy.rule = Nth(["\r\nsecond\r\n"], DROP, times=3)  # only outcomes name a step
            run = await client.submit(flow, 20)
            assert await run.result(timeout=20) == 42
            await eventually(lambda: worker.running == 0)
        types = Counter(event["type"] for event in await client.backend.load_wire_events(run.id))
        assert (proxy.dropped, types["StepStarted"], types["StepCompleted"]) == (3, 2, 2)
        await assert_consistent(client.backend)


async def test_walks_over_all_keys_are_ridden_out(through: Settings, proxy: Proxy) -> None:
    async with Client(settings=through) as client:
        runs = await client.submit_many(flow, range(1200))
        before = proxy.dropped
        proxy.rule = Nth(["SCAN", "TTL", "UNLINK"], DROP, every=2)
        exported = {wire["runId"] async for wire in export_runs(client.backend) if wire["type"] == "RunSubmitted"}
        assert exported == {run.id for run in runs}
        assert not [violation async for violation in Verifier(client.backend).check()]
        await purge(client.backend)
        assert proxy.dropped > before + 5
        proxy.rule = lambda _: PASS
        assert not [key async for key in client.backend.client.scan_iter(match=f"{{{through.namespace}*", count=1000)]
