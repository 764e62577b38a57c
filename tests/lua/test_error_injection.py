"""Every call that a script makes to Redis fails once, and the keys still fit the streams.

The script under test runs with a shim in front of `redis.call` and `redis.pcall` that lets the n-th of them
fail, for every n that the script reaches. Where it raised before its first write, nothing may have changed.
After each, the namespace is verified, and the runs are driven to their ends as a worker and a reclaimer
would: no run may be stranded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from redis.exceptions import ResponseError

from redisflow.backend.keys import key_hash, new_run_id, route_of_key
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.steps import failure_parts, skip_data
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import Script
from redisflow.codec import pack
from redisflow.model.invariants import RULES
from tests.flows import (
    CHAIN,
    DIAMOND,
    ERROR,
    PRINTS,
    SECOND,
    claim,
    complete,
    completed,
    fan_in_and_out,
    history,
    plan,
    retry,
    snapshot,
    status,
    step,
    submit,
    travel,
    turn,
)

SHIM = """local redis = (function(real)
local writes = { XADD = 1, HSET = 1, ZADD = 1, ZREM = 1, SET = 1, DEL = 1, UNLINK = 1, EXPIRE = 1,
ZREMRANGEBYSCORE = 1, HDEL = 1, ZPOPMAX = 1, XTRIM = 1, XDEL = 1 }
local at, count, wrote = tonumber(real.call('GET', KEYS[3])), 0, 0
local function hit(name)
if at == 0 then real.call('INCR', KEYS[3] .. '-count') end
count = count + 1
if count == at then real.call('SET', KEYS[3], name .. ' ' .. wrote) return true end
if writes[name] then wrote = wrote + 1 end
end
return setmetatable({
call = function(...) if hit((...)) then error({ err = 'ERR injected' }) end return real.call(...) end,
pcall = function(...) if hit((...)) then return { err = 'ERR injected' } end return real.pcall(...) end,
}, { __index = real })
end)(redis)""".replace("\n", " ")
LONG = '"' + "x" * 200 + '"'
BRANCHES = plan(
    step("a", retry=retry(attempts=2, crashes=1)), step("b"), step("c", "a"), step("d", "c", optional=["a"]),
    input_schema={"type": "string"}, timeout_us=3600 * SECOND,
)  # fmt: skip
FINISH = plan(step("a"), step("b"), step("c", "a"), on_error="finish")


@dataclass(frozen=True)
class Call:
    """A call in a state in which it has something to do."""

    script: str
    named: dict[str, Any]
    rest: tuple[Any, ...] = ()


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
        "body": pack({"wi": "w1", "wc": 10})[1:], "asleep": 0,
    }  # fmt: skip
    return Call("turn", named, (*completed(one, "a", lease), *completed(two, "a", lease)))


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


def shimmed(script: Script) -> Script:
    """The script with the shim on its second line, where the names are bound: line numbers stay."""
    head, bound, rest = script.text.split("\n", 2)
    text = f"{head}\n{bound} {SHIM}\n{rest}"
    return replace(script, text=text, sha=hashlib.sha1(text.encode()).hexdigest())


async def run_shimmed(backend: RedisBackend, script: Script, call: Call, nth: int) -> tuple[Any, str, int]:
    """Reply or error, the command that failed ("" where there were fewer calls), the writes before it."""
    keys = backend.partitions[0]
    probe = keys.prefix + "probe"
    await backend.client.set(probe, nth)
    named = {"epoch": backend.epoch, **call.named}
    if ("request", "string") in script.arguments:
        named["request"] = f"request-{nth}"
    argv = script.pack(call.rest, **named)
    try:
        reply = await backend.client.eval(script.text, 3, keys.meta, keys.never, probe, *argv)  # type: ignore[misc]
    except ResponseError as error:
        reply = error
    found = (await backend.client.get(probe)).decode()
    await backend.client.delete(probe)
    command, _, wrote = found.partition(" ")
    return (reply, command, int(wrote)) if wrote else (reply, "", 0)


async def wipe(backend: RedisBackend) -> None:
    """Take the runs away, keep the namespace and its plans."""
    keys = backend.partitions[0]
    async for key in backend.client.scan_iter(match=f"{keys.prefix}*", count=1000):
        if not key.decode()[len(keys.prefix) :].startswith(("meta", "plan", "running")):
            await backend.client.delete(key)
    for member in await backend.client.zrange(keys.running, 0, -1):
        if b"|" in member:
            await backend.client.zrem(keys.running, member)


async def live_runs(backend: RedisBackend) -> list[str]:
    """Every run with a hash that has not ended."""
    keys = backend.partitions[0]
    found = []
    async for key in backend.client.scan_iter(match=f"{keys.prefix}run:*", count=1000, _type="HASH"):
        run_id = key.decode()[len(keys.prefix) + 4 :]
        if await status(backend, run_id) in ("pending", "running"):
            found.append(run_id)
    return found


async def drive(backend: RedisBackend, rounds: int = 40) -> list[str]:
    """A reclaimer and a worker with all the code, until no run is live; the runs that never end."""
    for number in range(rounds):
        if not (live := await live_runs(backend)):
            return []
        await travel(backend, 40 * SECOND)
        await backend.reclaim_round(0, threshold_us=0, reclaimed_by="r1")
        reply = await turn(backend, 1, want=64, worker=f"driver-{number}.x")
        outcomes = [
            part for run, name, _, attempt, *_ in reply[5]
            for part in completed(run.decode(), name.decode(), reply[1], attempt)
        ]  # fmt: skip
        await turn(backend, 2, outcomes=outcomes, worker=f"driver-{number}.x")
    return live


async def differences(backend: RedisBackend) -> list[str]:
    """What verify says of the keys. A history that was cut in mid-call has a gap for good, and the next heartbeat gives a TTL."""
    found = [violation async for violation in Verifier(backend).check() if violation.rule not in RULES]
    return [f"{each.rule}: {each.message}" for each in found if not each.message.endswith("has no TTL")]


async def judge(backend: RedisBackend, call: Call, reply: Any, wrote: int, before: dict[bytes, bytes]) -> list[str]:
    """What is wrong after a failed call."""
    if isinstance(reply, ResponseError) and "injected" not in str(reply):
        return [f"raised {reply}"]
    if isinstance(reply, ResponseError) and wrote == 0 and await snapshot(backend) != before:
        return ["raised before the first write, but something changed"]
    if call.script == "delete" and not isinstance(reply, ResponseError) and reply[0] == Reply.MORE:
        await backend.delete_run(str(call.named["run_id"]))  # what the answer asks for
    wrong = await differences(backend)
    if call.script == "submit" and not isinstance(reply, ResponseError) and reply[0] == Reply.OK:
        wrong += [
            f"{run} was accepted, but is not there"
            for run, code in zip(call.rest[::3], reply[1], strict=True)
            if code == Reply.OK and not await status(backend, run)
        ]
    if wrong:
        return wrong
    wrong += [f"{run} is stranded after {(await history(backend, run))[-1]}" for run in await drive(backend)]
    return wrong + [f"later {line}" for line in await differences(backend)]


async def count_calls(backend: RedisBackend, name: str) -> int:
    """How many calls to Redis the script makes where none of them fails."""
    call = await SCENARIOS[name](backend)
    reply, _, _ = await run_shimmed(backend, shimmed(backend.scripts[call.script]), call, 0)
    assert isinstance(reply, list), reply
    assert (reply[0][0] if isinstance(reply[0], list) else reply[0]) == Reply.OK
    count = int(await backend.client.getdel(f"{backend.partitions[0].prefix}probe-count"))
    await wipe(backend)
    return count


@pytest.mark.parametrize("name", SCENARIOS)
async def test_one_failing_call(backend: RedisBackend, name: str) -> None:
    wrong: list[str] = []
    total = await count_calls(backend, name)
    # of a large run, whose calls are much alike: the first, some, and the last
    nths = [n for n in range(1, total + 1) if name not in LARGE or n < 6 or n % (total // 4) == 0 or n > total - 8]
    try:
        for nth in nths:
            call = await SCENARIOS[name](backend)
            before = await snapshot(backend)
            reply, command, wrote = await run_shimmed(backend, shimmed(backend.scripts[call.script]), call, nth)
            assert command, f"the script made fewer calls than the {total} before"
            found = await judge(backend, call, reply, wrote, before)
            wrong += [f"call {nth} ({command}, after {wrote} writes): {line}" for line in found[:2]]
            await wipe(backend)
    finally:
        await wipe(backend)
    assert total >= 5
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_events_are_those_of_the_header(backend: RedisBackend, name: str) -> None:
    call = await SCENARIOS[name](backend)
    script = backend.scripts[call.script]
    before = {run: len(await history(backend, run)) for run in await live_runs(backend)}
    reply, command, _ = await run_shimmed(backend, shimmed(script), call, 10**6)
    assert (isinstance(reply, list), command) == (True, "")
    runs = {*before, *await live_runs(backend)}
    new = [line.split()[0] for run in runs for line in (await history(backend, run))[before.get(run, 0) :]]
    assert set(new) <= set(script.events)
    assert new or call.script in ("delete", "repair")
