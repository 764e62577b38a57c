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
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule, run_state_machine_as_test

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
                step.status = "skipped"
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
        self.model: dict[str, ModelRun] = {}
        self.how: dict[tuple[str, str, int], str] = {}

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

    @rule(target=claims, run_id=runs, name=st.sampled_from(sorted(NEEDS)))
    def claim(self, run_id: str, name: str) -> Claim | None:
        claim = self.do(self.backend.claim_step(run_id, name, "w"))
        run = self.model.get(run_id)
        expected = run is not None and run.live and run.steps[name].status == "scheduled"
        assert (claim is not None) == expected
        if claim is not None and run is not None:
            step = run.steps[name]
            assert claim.attempt_number == step.attempt
            step.status, step.lease, run.status = "running", claim.lease, "running"
        return claim

    @rule(target=ended_claims, claim=consumes(claims), kind=st.sampled_from(["complete", "fail", "skip", "release"]))
    def settle(self, claim: Claim | None, kind: str) -> tuple[Claim, str] | None:
        if claim is None:
            return None
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
    def repeat(self, ended: tuple[Claim, str] | None) -> None:
        if ended is None:
            return
        claim, kind = ended
        before = self.do(self.snapshot(claim.run_id))
        assert self.do(self.call(claim, kind)) != Reply.OK
        assert self.do(self.snapshot(claim.run_id)) == before

    @rule()
    def reclaim(self) -> None:
        running = [
            (run, name)
            for run in self.model.values()
            if run.live
            for name, step in run.steps.items()
            if step.status == "running"
        ]
        taken = self.do(self.backend.reclaim_round(0, threshold_us=0, reclaimed_by="r")).reclaimed
        assert len(taken) <= len(running)
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
    def rerun(self, run_id: str, name: str) -> str:
        run = self.model.get(run_id)
        if run is None or run.live:
            return run_id
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
                    assert (STEP_STATUSES[found.status], found.lease) == (step.status, step.lease), name
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
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
