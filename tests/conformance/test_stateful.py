"""Random sequences of calls against a small model of what redisflow promises.

The workflow: `a` (two attempts, one crash), then `b`, which needs its output, and `c`, which can do without. After every call the
states agree with the model, and every derived key with the fold of the streams.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import STEP_STATUSES, parse_header, parse_step
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim, Submission
from redisflow.model.errors import TransitionRefused
from redisflow.model.retry import RetryPolicy, RetryTier
from redisflow.model.workflow import Edge, Plan, PlanStep
from redisflow.settings import Settings
from tests.conftest import TestServer

AT_ONCE = RetryTier(attempts=2, delay_us=0, jitter=0)
NEEDS = {"a": {}, "b": {"a": "required"}, "c": {"a": "optional"}}
PLAN = Plan(
    slug="model",
    name="model",
    steps=tuple(
        PlanStep(
            id=name,
            name=name,
            queue="model",
            dependencies=tuple(Edge(step=step, kind=kind) for step, kind in needs.items()),  # type: ignore[arg-type]
            params=tuple(step for step, kind in needs.items() if kind == "required"),
            retry=RetryPolicy(tiers=(AT_ONCE if name == "a" else RetryTier(delay_us=0, jitter=0),), crashes=1),
            export=True,
        )
        for name, needs in NEEDS.items()
    ),
)
ATTEMPTS = {"a": 2, "b": 1, "c": 1}
HASHES = ["0" * 40] * 5


@dataclass
class ModelStep:
    status: str = "pending"
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    lease: int = 0


@dataclass
class ModelRun:
    """What a run must be: the rules of the transition table, in as few lines as they take."""

    status: str = "pending"
    steps: dict[str, ModelStep] = field(default_factory=lambda: {name: ModelStep() for name in NEEDS})

    @property
    def live(self) -> bool:
        return self.status in ("pending", "running")

    def met(self, name: str) -> bool:
        return all(
            self.steps[step].status == "completed" or (self.steps[step].status == "skipped" and kind != "required")
            for step, kind in NEEDS[name].items()
        )

    def schedule(self, name: str) -> None:
        step = self.steps[name]
        step.status, step.attempt, step.lease = "scheduled", step.attempt + 1, 0

    def advance(self) -> None:
        for name, step in self.steps.items():
            if step.status != "pending":
                continue
            if any(self.steps[s].status == "skipped" for s, kind in NEEDS[name].items() if kind == "required"):
                step.status, step.attempt = "skipped", max(1, step.attempt)
            elif self.met(name):
                self.schedule(name)
        if all(step.status in ("completed", "skipped") for step in self.steps.values()):
            self.status = "completed"

    def fail(self, name: str, *, crash: bool) -> None:
        step = self.steps[name]
        step.failures += not crash
        step.crashes += crash
        if (step.crashes > 1) if crash else (step.failures >= ATTEMPTS[name]):
            step.status, step.lease, self.status = "failed", 0, "failed"
        else:
            self.schedule(name)

    def retry(self) -> None:
        self.status = "pending"
        for name, step in self.steps.items():
            step.failures = step.crashes = 0
            if step.status not in ("completed", "skipped") and self.met(name):
                self.schedule(name)


class Engine(RuleBasedStateMachine):
    """The machine; `server` is set by the test."""

    server: TestServer
    runs = Bundle("runs")
    claims = Bundle("claims")
    ended_claims = Bundle("ended_claims")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.backend = RedisBackend(Settings(url=self.server.url, namespace=f"s{uuid.uuid4().hex[:10]}"))
        self.do(self.backend.initialize())
        self.do(self.backend.register_plan(PLAN))
        self.send = self.backend.server.script
        self.sent: list[tuple[Any, ...]] = []
        self.backend.server.script = self.recorded  # type: ignore[method-assign]
        self.model: dict[str, ModelRun] = {}
        self.how: dict[tuple[str, str, int], str] = {}

    async def recorded(self, script: Any, keys: Any, argv: list[Any], **options: Any) -> list[Any]:
        reply = await self.send(script, keys, argv, **options)
        if reply[0] == Reply.OK and any(name == "request" for name, _ in script.arguments):
            self.sent.append((script, keys, argv, reply))
        return reply

    def do(self, call: Any) -> Any:
        return self.loop.run(call) if asyncio.iscoroutine(call) else call

    def teardown(self) -> None:
        async def finish() -> list[Any]:
            found = [violation async for violation in Verifier(self.backend).check()]
            await self.backend.close()
            return found

        try:
            assert self.do(finish()) == []
        finally:
            self.loop.close()

    @rule(target=runs, key=st.sampled_from([None, "k1", "k2"]), priority=st.sampled_from([0, 5]))
    def submit(self, key: str | None, priority: int) -> str:
        [result] = self.do(self.backend.submit(PLAN, [Submission(idempotency_key=key, priority=priority)]))
        assert result.is_new == (result.run_id not in self.model)
        if result.is_new:
            self.model[result.run_id] = run = ModelRun()
            run.schedule("a")
        return str(result.run_id)

    def steps_that_are(self, status: str) -> list[tuple[str, str]]:
        """Run and name of each such step of a live run."""
        return [
            (run_id, name)
            for run_id, run in self.model.items()
            if run.live
            for name, step in run.steps.items()
            if step.status == status
        ]

    @precondition(lambda self: self.steps_that_are("scheduled"))
    @rule(target=claims, place=st.integers(0, 99))
    def claim_what_is_due(self, place: int) -> Any:
        due = self.steps_that_are("scheduled")
        return self.claim(*due[place % len(due)])

    @rule(target=claims, run_id=runs, name=st.sampled_from(sorted(NEEDS)))
    def claim_by_name(self, run_id: str, name: str) -> Any:
        return self.claim(run_id, name)

    def claim(self, run_id: str, name: str) -> Any:
        run = self.model.get(run_id)
        claim = self.do(self.backend.claim_step(run_id, name, "w"))
        expected = run is not None and run.live and run.steps[name].status == "scheduled"
        assert (claim is not None) == expected
        if claim is not None and run is not None:
            step = run.steps[name]
            assert claim.attempt_number == step.attempt
            step.status, step.lease, run.status = "running", claim.lease, "running"
        return multiple() if claim is None else claim

    @rule(target=ended_claims, claim=consumes(claims), kind=st.sampled_from(["complete", "fail", "skip", "release"]))
    def settle(self, claim: Claim, kind: str) -> tuple[Claim, str]:
        reply = self.do(self.call(claim, kind))
        run = self.model.get(claim.run_id)
        key = (claim.run_id, claim.step_id, claim.lease)
        if run is None:
            assert reply == Reply.GONE
        elif run.live and run.steps[claim.step_id].lease == claim.lease:
            assert reply == Reply.OK
            self.how[key] = kind
            self.ended(run, claim.step_id, kind)
        else:
            assert reply in (Reply.STALE, Reply.RUN_ENDED, Reply.CONFLICT, Reply.ALREADY)
            assert (
                reply != Reply.ALREADY or kind == "release"
            )  # a retry of the run took the lease back, as a release does
        return claim, kind

    @rule(ended=ended_claims)
    def repeat(self, ended: tuple[Claim, str]) -> None:
        claim, kind = ended
        before = self.do(self.snapshot(claim.run_id))
        assert self.do(self.call(claim, kind)) != Reply.OK
        assert self.do(self.snapshot(claim.run_id)) == before

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 9))
    def repeat_an_earlier_call(self, place: int) -> None:
        """As after a lost reply: it is answered as before, and nothing happens."""
        script, keys, argv, reply = self.sent[-1 - place % len(self.sent)]
        before = self.do(self.every_key())
        again = self.do(self.send(script, keys, argv))
        # a claim that has lost its lease is not handed out once more
        lost = script.name == "claim" and again[0] in (Reply.STALE, Reply.RUN_ENDED, Reply.GONE)
        assert again == reply or lost
        assert self.do(self.every_key()) == before

    @rule(claim=claims)
    def heartbeat(self, claim: Claim) -> None:
        """It renews the lease of a step that runs, and nothing else."""
        run = self.model.get(claim.run_id)
        expected = Reply.GONE if run is None else Reply.RUN_ENDED
        if run is not None and run.live:
            expected = Reply.OK if run.steps[claim.step_id].lease == claim.lease else Reply.STALE
        before = self.do(self.beat_of(claim))
        lease = [claim.run_id, claim.step_id, claim.lease]
        now, (code,) = self.do(self.backend.call("heartbeat", 0, lease, worker="w.1", info="{}"))[1:]
        assert code == expected
        assert self.do(self.beat_of(claim)) == (now if code == Reply.OK else before)

    @precondition(lambda self: self.steps_that_are("running"))
    @rule()
    def reclaim(self) -> None:
        running = set(self.steps_that_are("running"))
        taken = self.do(self.backend.reclaim_round(0, threshold_us=0, reclaimed_by="r")).reclaimed
        # the end of a run by one step leaves the others, which it gave up, running
        assert {(step.run_id, step.step_id) for step in taken} <= running
        assert {step.run_id for step in taken} == {run_id for run_id, _ in running}
        for step in taken:
            run = self.model[step.run_id]
            assert run.steps[step.step_id].attempt == step.attempt_number
            if run.live:
                run.fail(step.step_id, crash=True)

    @rule(run_id=runs)
    def cancel(self, run_id: str) -> None:
        run = self.model.get(run_id)
        if run is not None:
            result = self.do(self.backend.cancel_run(run_id))
            assert result.cancelled == run.live
            run.status = "cancelled" if run.live else run.status

    @rule(run_id=runs)
    def retry(self, run_id: str) -> None:
        run = self.model.get(run_id)
        if run is not None and run.status == "failed":
            self.do(self.backend.retry_run(run_id))
            run.retry()
        elif run is not None:
            with pytest.raises(TransitionRefused):
                self.do(self.backend.retry_run(run_id))

    @rule(target=runs, run_id=runs, name=st.sampled_from(sorted(NEEDS)))
    def rerun(self, run_id: str, name: str) -> Any:
        run = self.model.get(run_id)
        if run is None or run.live:
            return multiple()
        new_id = self.do(self.backend.rerun_from(run_id, name))
        self.model[new_id] = new = ModelRun()
        repeated = {name} | ({"b", "c"} if name == "a" else set())
        for kept, step in run.steps.items():
            if kept not in repeated and step.status in ("completed", "skipped"):
                new.steps[kept] = ModelStep(step.status, max(1, step.attempt))
        new.advance()
        return str(new_id)

    @rule(run_id=runs)
    def delete(self, run_id: str) -> None:
        run = self.model.get(run_id)
        if run is None:
            assert self.do(self.backend.delete_run(run_id)) is False
        elif run.live:
            with pytest.raises(TransitionRefused):
                self.do(self.backend.delete_run(run_id))
        else:
            assert self.do(self.backend.delete_run(run_id)) is True
            del self.model[run_id]

    @rule()
    def flush_scripts(self) -> None:
        self.do(self.backend.client.script_flush())

    @invariant()
    def states_agree(self) -> None:
        for run_id, run in self.model.items():
            header, fields = self.do(self.snapshot(run_id))
            assert header.status_word == run.status
            for name, step in run.steps.items():
                if name in fields:
                    found = fields[name]
                    assert (STEP_STATUSES[found.status], found.lease, found.attempt) == (
                        step.status,
                        step.lease,
                        step.attempt,
                    ), name
                else:
                    assert step.status == "pending"
            assert self.do(Verifier(self.backend).check_run(run_id)) == []

    def ended(self, run: ModelRun, name: str, kind: str) -> None:
        step = run.steps[name]
        if kind == "release":
            step.attempt -= 1
            run.schedule(name)
        elif kind == "fail":
            run.fail(name, crash=False)
        else:
            step.status, step.lease = "completed" if kind == "complete" else "skipped", 0
            run.advance()

    async def call(self, claim: Claim, kind: str) -> Reply:
        if kind == "complete":
            return (await self.backend.complete_step(claim, "1", export_output=True)).reply
        if kind == "fail":
            return (await self.backend.fail_step(claim, {"name": "E", "message": "m"}, HASHES)).reply
        if kind == "skip":
            return (await self.backend.skip_step(claim, "why")).reply
        return (await self.backend.release_step(claim)).reply

    async def beat_of(self, claim: Claim) -> float | None:
        key = self.backend.keys_of(claim.run_id).running
        return await self.backend.client.zscore(key, f"{claim.run_id}|{claim.step_id}")  # type: ignore[no-any-return]

    async def every_key(self) -> dict[bytes, bytes]:
        """Every key with its value, without the clock that each call moves."""
        client, meta = self.backend.client, self.backend.partitions[0].meta.encode()
        keys = sorted([key async for key in client.scan_iter(match=f"{{{self.backend.namespace}*", count=1000)])
        return {key: await client.dump(key) for key in keys if key != meta}

    async def snapshot(self, run_id: str) -> Any:
        raw = await self.backend.client.hgetall(self.backend.keys_of(run_id).run(run_id))
        if not raw:
            return None
        steps = {key[2:].decode(): parse_step(value) for key, value in raw.items() if key.startswith(b"s:")}
        return parse_header(raw[b"h"]), steps


def test_random_calls_agree_with_the_model(server: TestServer) -> None:
    Engine.server = server
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Engine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
