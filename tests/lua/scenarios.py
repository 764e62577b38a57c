"""One state a script and branch in which a call of it has something to do: what the tests of failing calls run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from redisflow.backend.keys import key_hash, new_run_id, route_of_key
from redisflow.backend.plans import plan_fields
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.steps import failure_parts, skip_data
from redisflow.backend.turns import SLOTS
from redisflow.codec import pack
from tests.flows import (
    CHAIN,
    DIAMOND,
    ERROR,
    ONE,
    PRINTS,
    SECOND,
    claim,
    complete,
    completed,
    fail,
    fan_in_and_out,
    plan,
    retry,
    step,
    submit,
    travel,
    turn,
)

LONG = '"' + "x" * 200 + '"'
BRANCHES = plan(
    step("a", retry=retry(attempts=2, crashes=1)), step("b"), step("c", "a"), step("d", "c", optional=["a"]),
    input_schema={"type": "string"}, timeout_us=3600 * SECOND,
)  # fmt: skip
FINISH = plan(step("a"), step("b"), step("c", "a"), on_error="finish")


@dataclass(frozen=True)
class Call:
    """A call in a state in which it has something to do.

    Attributes:
        leaves: run and event, as `history` gives it, of what must be stored where the answer is OK; what an outcome leaves is not
            among it, since the step of a lost one goes stale and runs again.
        makes: runs that are not there where the answer is REJECTED.
    """

    script: str
    named: dict[str, Any]
    rest: tuple[Any, ...] = ()
    leaves: tuple[tuple[str, str], ...] = ()
    makes: tuple[str, ...] = ()


Prepare = Callable[[RedisBackend], Awaitable[Call]]
SCENARIOS: dict[str, Prepare] = {}
LARGE = ("complete_a_hub", "expand_by_reclaim")


def scenario(prepare: Prepare) -> Prepare:
    SCENARIOS[prepare.__name__] = prepare
    return prepare


async def outcome(
    backend: RedisBackend,
    name: str,
    workflow: Any,
    step_id: str,
    data: Any,
    payload: Any = "",
    how: str = "",
    *before: str,
) -> Call:
    """One outcome of a step that was just claimed, in a run that somebody waits for."""
    run_id = await submit(backend, workflow, input=LONG, tags=["eu"], timeout_us=3600 * SECOND)
    await complete(backend, run_id, *before)
    claimed = await claim(backend, run_id, step_id)
    await backend.status_of([run_id])
    named = {
        "run_id": run_id,
        "step": step_id,
        "lease": claimed.lease,
        "data": data,
        "payload": payload,
        "how": how,
    }
    return Call(name, named)


COMPLETED = pack({"a": 1, "d": 5, "x": True})


@scenario
async def submit_two(backend: RedisBackend) -> Call:
    number = await backend.plan_number(BRANCHES, 0)
    hashed = key_hash("k")
    run_id = new_run_id(route_of_key(hashed))
    fields = {"pl": number, "hs": True, "tg": ["eu"], "tm": 3600 * SECOND, "ik": "k", "ih": hashed}
    return Call("submit", {}, (run_id, pack(fields), LONG, "other.1", pack({"pl": number, "p": 5}), ""))


@scenario
async def submit_two_alike(backend: RedisBackend) -> Call:
    envelope = pack({"pl": await backend.plan_number(BRANCHES, 0)})
    return Call("submit", {}, ("one.1", envelope, LONG, "two.1", envelope, "1"))


@scenario
async def submit_and_hand_over(backend: RedisBackend) -> Call:
    await backend.listener.subscribe(backend.partitions[0].wake_channel("w1.x"), lambda _: None)
    await turn(backend, 1, want=1, queues="flow", handed=0)
    return Call("submit", {}, ("one.1", pack({"pl": await backend.plan_number(BRANCHES, 0)}), LONG))


@scenario
async def submit_and_hand_over_along_an_edge(backend: RedisBackend) -> Call:
    call = await submit_and_hand_over(backend)
    rest = ("one.1", pack({"pl": await backend.plan_number(CHAIN, 0)}), *call.rest[2:])
    return Call("submit", {"request": ""}, rest)


@scenario
async def turn_after_a_lost_message(backend: RedisBackend) -> Call:
    await submit_and_hand_over(backend)
    await submit(backend, BRANCHES, input=LONG)
    named = {
        "worker": "w1.x", "lane": 1, "seq": 1, "want": 2, "queues": "flow", "slots": b"".join(SLOTS[:2]),
        "body": pack({"wi": "w1", "wc": 10})[1:], "asleep": 1, "handed": 0,
    }  # fmt: skip
    return Call("turn", named)


@scenario
async def first_claim(backend: RedisBackend) -> Call:
    run_id = await submit(backend, BRANCHES, input=LONG)
    return Call("claim", {"run_id": run_id, "step": "a", "body": pack({"wi": "w1"})[1:], "pairs_in_body": 1})


@scenario
async def complete_with_dependents(backend: RedisBackend) -> Call:
    return await outcome(backend, "complete", DIAMOND, "a", COMPLETED, LONG)


@scenario
async def complete_the_last(backend: RedisBackend) -> Call:
    return await outcome(backend, "complete", CHAIN, "b", COMPLETED, "1", "", "a")


@scenario
async def complete_a_hub(backend: RedisBackend) -> Call:
    return await outcome(backend, "complete", fan_in_and_out(520), "root", COMPLETED, "1")


@scenario
async def fail_and_retry(backend: RedisBackend) -> Call:
    data, error, _ = failure_parts(1, ERROR, PRINTS, 5, reason="execution-error")
    return await outcome(backend, "fail", BRANCHES, "a", data, error, "execution-error 0.5 - 0")


@scenario
async def fail_for_good(backend: RedisBackend) -> Call:
    data, error, _ = failure_parts(1, ERROR, PRINTS, 5, reason="execution-error")
    return await outcome(backend, "fail", BRANCHES, "a", data, error, "execution-error 0.5 - 1")


@scenario
async def fail_where_others_finish(backend: RedisBackend) -> Call:
    data, error, _ = failure_parts(1, ERROR, PRINTS, 5, reason="execution-error")
    return await outcome(backend, "fail", FINISH, "b", data, error, "execution-error 0.5 - 0")


@scenario
async def skip_and_cascade(backend: RedisBackend) -> Call:
    return await outcome(backend, "skip", BRANCHES, "a", skip_data(1, "no", None))


@scenario
async def release_at_drain(backend: RedisBackend) -> Call:
    return await outcome(backend, "release", BRANCHES, "a", b"", b"", "drain")


@scenario
async def release_unknown(backend: RedisBackend) -> Call:
    return await outcome(backend, "release", BRANCHES, "a", b"", b"", "unknown 1000000")


@scenario
async def cancel_a_running_run(backend: RedisBackend) -> Call:
    call = await outcome(backend, "complete", BRANCHES, "a", COMPLETED)
    return Call("cancel", {"run_id": call.named["run_id"], "reason": pack({"r": "no"})[1:]})


@scenario
async def reclaim_two(backend: RedisBackend) -> Call:
    run_id = await submit(backend, BRANCHES)
    await claim(backend, run_id, "a")
    over = await submit(backend, plan(step("a", retry=retry(crashes=0)), step("b")))
    await claim(backend, over, "a")
    await claim(backend, over, "b")
    return Call("reclaim", {"reclaimer": "r1", "threshold": 0, "tick": 0, "draw": "0.5"})


@scenario
async def expand_by_reclaim(backend: RedisBackend) -> Call:
    await submit(backend, plan(*(step(f"s{i}") for i in range(520))))
    await backend.reclaim_round(0, threshold_us=10**12, reclaimed_by="r0")  # over the steps that the submit scheduled
    return Call("reclaim", {"reclaimer": "r1", "threshold": 10**12, "tick": 0, "draw": "0.5"})


@scenario
async def sweep_two(backend: RedisBackend) -> Call:
    first, second = [await submit(backend, CHAIN, timeout_us=SECOND) for _ in range(2)]
    await claim(backend, first, "a")
    await backend.status_of([second])
    await travel(backend, 2 * SECOND)
    return Call("sweep", {"retention": 10**15})


@scenario
async def turn_with_outcomes_and_claims(backend: RedisBackend) -> Call:
    one, two = await submit(backend, DIAMOND), await submit(backend, CHAIN)
    lease = (await turn(backend, 1, want=2))[1]
    await submit(backend, CHAIN)
    named = {
        "worker": "w1.x", "lane": 0, "seq": 2, "want": 3, "queues": "flow", "slots": b"\xcd\0\0" * 3,
        "body": pack({"wi": "w1", "wc": 10})[1:], "asleep": 0, "handed": -1,
    }  # fmt: skip
    return Call("turn", named, (*completed(one, "a", lease), *completed(two, "a", lease)))


@scenario
async def turn_that_ends_runs(backend: RedisBackend) -> Call:
    ends = []
    for run_id in [await submit(backend, ONE, timeout_us=3600 * SECOND), await submit(backend, ONE, input=LONG)]:
        ends += completed(run_id, "a", (await claim(backend, run_id, "a")).lease, output=LONG)
    await travel(backend, 3000 * SECOND)  # so both took as long, as the buckets of their durations have it
    named = {
        "worker": "w1.x", "lane": 0, "seq": 1, "want": 0, "queues": "flow", "slots": b"", "body": pack({"wi": "w1", "wc": 10})[1:],
        "asleep": 0, "handed": -1,
    }  # fmt: skip
    return Call("turn", named, tuple(ends))


@scenario
async def heartbeat_with_an_event(backend: RedisBackend) -> Call:
    run_id = await submit(backend, BRANCHES)
    leases = []
    for name in ("a", "b"):
        leases += [run_id, name, (await claim(backend, run_id, name)).lease]
    await travel(backend, 61 * SECOND)
    return Call("heartbeat", {"worker": "w1.x", "info": "{}"}, tuple(leases))


@scenario
async def delete_an_ended_run(backend: RedisBackend) -> Call:
    run_id = await submit(backend, CHAIN, idempotency_key="k", tags=["eu"])
    await complete(backend, run_id, "a", "b")
    return Call("delete", {"run_id": run_id})


@scenario
async def repair_a_damaged_run(backend: RedisBackend) -> Call:
    run_id = await submit(backend, DIAMOND)
    await complete(backend, run_id, "a")
    keys = backend.keys_of(run_id)
    last = (await backend.client.xrevrange(keys.events(run_id), count=1))[0][0]
    return Call("repair", {"run_id": run_id, "last_id": last}, ("scheduled:flow:5", f"{run_id}|a"))


@scenario
async def append_to_a_run_and_import_another(backend: RedisBackend) -> Call:
    run_id = await submit(backend, BRANCHES)
    await claim(backend, run_id, "a")
    early = await backend.now() - SECOND
    error = {"e": ERROR, "fp": PRINTS, "t": False, "f": "timeout"}
    number = await backend.plan_number(CHAIN, 0)
    rest: list[Any] = []
    for run, kind, name, fields, payload, given in (
        (run_id, "LogEntry", "a", {"a": 1, "st": "stdout", "m": "line", "ts": early}, "", ""),
        (run_id, "StepFailed", "a", {"a": 1, "d": 5, **error}, "", str(early)),
        ("moved.1", "RunSubmitted", "", {"pl": number, "go": True, "ts": early, "v": early, "tg": ["eu"]}, LONG, ""),
        ("moved.1", "StepScheduled", "a", {"a": 1, "r": "i", "v": early, "ts": early + 1}, "", ""),
        ("moved.1", "StepStarted", "a", {"a": 1, "wi": "w1", "dp": [], "ts": early + 2}, "", ""),
        ("moved.1", "StepCompleted", "a", {"a": 1, "d": 5, "x": False, "ts": early + 3}, LONG, ""),
    ):
        rest += [run, kind, name, pack({**fields, "sv": 1}), payload, given]
    leaves = (
        (run_id, "LogEntry a"),
        (run_id, "StepFailed a"),
        ("moved.1", "RunSubmitted"),
        ("moved.1", "StepCompleted a"),
    )
    return Call("append", {}, tuple(rest), leaves, ("moved.1",))


@scenario
async def record_checkpoint_and_log(backend: RedisBackend) -> Call:
    run_id = await submit(backend, BRANCHES)
    claimed = await claim(backend, run_id, "a")
    log = pack({"a": 1, "st": "stdout", "m": "line"})
    rest = ("StepCheckpoint", pack({"a": 1, "nm": "part", "sn": 0}), LONG, "LogEntry", log, "")
    leaves = ((run_id, "StepCheckpoint a"), (run_id, "LogEntry a"))
    return Call("record", {"run_id": run_id, "step": "a", "lease": claimed.lease}, rest, leaves)


async def failed_run(backend: RedisBackend) -> str:
    """`b` failed and ended the run, while `c` was scheduled."""
    run_id = await submit(backend, DIAMOND, timeout_us=3600 * SECOND, tags=["eu"])
    await complete(backend, run_id, "a")
    await fail(backend, await claim(backend, run_id, "b"))
    return run_id


@scenario
async def retry_a_failed_run(backend: RedisBackend) -> Call:
    run_id = await failed_run(backend)
    return Call(
        "retry", {"run_id": run_id, "reason": pack({"r": "mended"})[1:]}, leaves=((run_id, "WorkflowRetryStarted"),)
    )


@scenario
async def resume_a_live_run(backend: RedisBackend) -> Call:
    run_id = await submit(backend, DIAMOND)
    await complete(backend, run_id, "a")
    return Call("resume", {"run_id": run_id}, leaves=((run_id, "WorkflowResumed"),))


@scenario
async def rerun_from_a_step(backend: RedisBackend) -> Call:
    parent = await submit(backend, DIAMOND, input=LONG)
    await complete(backend, parent, "a", "b", "c", "d")
    number = await backend.plan_number(DIAMOND, 0)
    lineage = pack({"pr": parent, "rf": "c", "ri": ["c", "d"], "vi": DIAMOND.version, "pv": DIAMOND.version})
    named = {
        "run_id": "again.1", "parent_id": parent, "envelope": pack({"pl": number, "tg": ["eu"], "tm": 3600 * SECOND}),
        "input": LONG, "lineage": lineage,
    }  # fmt: skip
    kinds = ("RunSubmitted", "WorkflowRerunFromStep", "StepCompleted a", "StepCompleted b", "StepScheduled c")
    return Call("rerun", named, ("a", "b"), tuple(("again.1", kind) for kind in kinds), ("again.1",))


@scenario
async def erase_the_end(backend: RedisBackend) -> Call:
    return Call("erase", {"run_id": await failed_run(backend), "what": "terminal"})


@scenario
async def erase_a_failed_step(backend: RedisBackend) -> Call:
    return Call("erase", {"run_id": await failed_run(backend), "what": "steps"}, ("b",))


@scenario
async def register_a_new_version(backend: RedisBackend) -> Call:
    return Call("register", {"version": f"sha256:{uuid4().hex}"}, tuple(plan_fields(CHAIN)))


@scenario
async def reserve_a_key(backend: RedisBackend) -> Call:
    return Call("reserve", {"key_hash": uuid4().hex, "run_id": "elsewhere.1"})


@scenario
async def forget_a_key(backend: RedisBackend) -> Call:
    named = {"key_hash": uuid4().hex, "run_id": "elsewhere.1"}
    await backend.call("reserve", 0, **named)
    return Call("forget", named)


@scenario
async def wait_for_a_run(backend: RedisBackend) -> Call:
    return Call("wait", {}, (await submit(backend, CHAIN), "nosuch.1"))
