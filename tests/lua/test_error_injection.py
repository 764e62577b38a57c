"""Every call that a script makes to Redis fails once, and the keys still fit the streams.

The script under test runs with a shim in front of `redis.call` and `redis.pcall` that lets the n-th of them
fail, for every n that the script reaches. Where it raised before its first write, nothing may have changed.
After each, the namespace is verified, and the runs are driven to their ends as a worker and a reclaimer
would: no run may be stranded.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from redis.exceptions import ResponseError

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import Script, load_scripts
from redisflow.model.invariants import RULES
from tests.flows import SECOND, completed, history, snapshot, status, travel, turn
from tests.lua.scenarios import LARGE, SCENARIOS, Call

SHIM = """local function real() return redis end
local redis = (function()
local writes = { XADD = 1, HSET = 1, ZADD = 1, ZREM = 1, SET = 1, DEL = 1, UNLINK = 1, EXPIRE = 1,
ZREMRANGEBYSCORE = 1, HDEL = 1, ZPOPMAX = 1, XTRIM = 1, XDEL = 1, XSETID = 1, RENAME = 1 }
local probe, at, count, wrote
local function hit(name, key, field)
if field == 'epoch' then
probe = string.gsub(key, 'meta$', 'probe')
at, count, wrote = tonumber(real().call('GET', probe)), 0, 0
end
if at == 0 then real().call('INCR', probe .. '-count') end
count = count + 1
if count == at then real().call('SET', probe, name .. ' ' .. wrote) return true end
if writes[name] then wrote = wrote + 1 end
end
return setmetatable({
call = function(...) if hit(...) then error({ err = 'ERR injected' }) end return real().call(...) end,
pcall = function(...) if hit(...) then return { err = 'ERR injected' } end return real().pcall(...) end,
}, { __index = function(_, name) return real()[name] end })
end)()""".replace("\n", " ")


@cache
def shimmed(script: Script) -> Script:
    """The script in a library with the shim on its second line: line numbers stay. Reading the epoch begins a call."""
    name = "redisflow_shimmed"
    text = script.library.text.replace(script.library.name, name)
    begin = "local function build() "
    assert text.count(begin) == 1
    return replace(script, library=replace(script.library, name=name, text=text.replace(begin, begin + SHIM + " ")))


async def run_shimmed(backend: RedisBackend, script: Script, call: Call, nth: int) -> tuple[Any, str, int]:
    """Reply or error, the command that failed ("" where there were fewer calls), the writes before it."""
    keys = backend.partitions[0]
    probe = keys.prefix + "probe"
    await backend.client.set(probe, nth)
    named = {"epoch": backend.epoch, **call.named}
    if script.repeatable:
        named.setdefault("request", f"request-{nth}")
    argv = script.pack(call.rest, **named)
    await backend.server.load_library(script.library, keys)  # anew, so that no plan is known from before
    try:
        reply = await backend.server.call_once(script, keys, argv)
    except ResponseError as error:
        reply = error
    found = (await backend.client.get(probe)).decode()
    await backend.client.delete(probe)
    command, _, wrote = found.partition(" ")
    return (reply, command, int(wrote)) if wrote else (reply, "", 0)


async def wipe(backend: RedisBackend) -> None:
    """Take the runs away, keep the namespace and its plans."""
    keys = backend.partitions[0]
    gone = [
        key
        async for key in backend.client.scan_iter(match=f"{keys.prefix}*", count=1000)
        if not key.decode()[len(keys.prefix) :].startswith(("meta", "plan", "running"))
    ]
    if gone:
        await backend.client.delete(*gone)
    if members := [member for member in await backend.client.zrange(keys.running, 0, -1) if b"|" in member]:
        await backend.client.zrem(keys.running, *members)


async def all_runs(backend: RedisBackend) -> list[str]:
    """Every run with a hash."""
    prefix = f"{backend.partitions[0].prefix}run:"
    found = backend.client.scan_iter(match=f"{prefix}*", count=1000, _type="HASH")
    return [key.decode().removeprefix(prefix) async for key in found]


async def live_runs(backend: RedisBackend) -> list[str]:
    """Every run with a hash that has not ended."""
    states = await backend.get_runs(await all_runs(backend))
    return [state.run_id for state in states if state and state.status in ("pending", "running")]


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
    if not isinstance(reply, ResponseError) and reply[0] == Reply.REJECTED:
        wrong += [f"refused, but {run} is there" for run in call.makes if await status(backend, run)]
    if not isinstance(reply, ResponseError) and reply[0] == Reply.OK:
        wrong += [
            f"OK, but {event} of {run} is not stored"
            for run, event in call.leaves
            if event not in await history(backend, run)
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
    assert total >= 4
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_events_are_those_of_the_header(backend: RedisBackend, name: str) -> None:
    call = await SCENARIOS[name](backend)
    script = backend.scripts[call.script]
    before = {run: len(await history(backend, run)) for run in await all_runs(backend)}
    reply, command, _ = await run_shimmed(backend, shimmed(script), call, 10**6)
    assert (isinstance(reply, list), command) == (True, "")
    runs = {*before, *await all_runs(backend)}
    new = [line.split()[0] for run in runs for line in (await history(backend, run))[before.get(run, 0) :]]
    assert set(new) <= set(script.events)
    assert new or not script.events


async def test_every_script_is_in_some_case(backend: RedisBackend) -> None:
    called = {(await prepare(backend)).script for prepare in SCENARIOS.values() if prepare.__name__ not in LARGE}
    await wipe(backend)
    assert called == set(load_scripts())
