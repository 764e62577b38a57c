"""Runs that go along edges and runs that go by the reducers alone: the same calls leave the same replies and the same keys.

Two namespaces get every call, one by the library as it is, one by a library whose light runs are switched off. Both see a clock
that stands still, so that even times and ids are equal.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.rollups import Rollups
from redisflow.backend.redis.steps import failure_parts, skip_data
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.scripts import Library, load_scripts
from redisflow.backend.turns import SLOTS, Handover
from redisflow.codec import pack
from redisflow.settings import Settings
from tests.conftest import TestServer
from tests.flows import CHAIN, DIAMOND, ERROR, ONE, PAIR, PRINTS, SECOND, completed, next_message, plan, retry, step

PLANS = {
    "one": ONE,
    "chain": CHAIN,
    "long": plan(step("a"), step("b", "a"), step("c", "b", queue="other"), step("d", "c"), slug="long"),
    "diamond": DIAMOND,
    "pair": PAIR,
    "join": plan(step("a"), step("b"), step("c", "a", "b"), slug="join"),
    "again": plan(step("a", retry=retry(attempts=3)), step("b", "a", retry=retry(attempts=2)), slug="again"),
    "after": plan(step("a"), step("b", after=("a",)), step("c", optional=("b",)), slug="after", on_error="finish"),
    "schema": plan(step("a"), step("b", "a"), slug="schema", input_schema={"type": "object"}),
}
ALL_QUEUES = ",".join(sorted({step.queue for each in PLANS.values() for step in each.steps}))
TEXTS = ("", "1", '"' + "x" * 200 + '"')
SWITCHED_OFF = {
    "function submit_edge(d)": "false",
    "function claim_light(id, name, member, pairs_text, slot_pairs)": "nil",
    "function complete_light(id, name, lease, data, payload, took)": "nil",
}


EVERYTHING = """
local reads = {
  hash = function(key) return redis.call('HGETALL', key) end,
  zset = function(key) return redis.call('ZRANGE', key, '0', '-1', 'WITHSCORES') end,
  stream = function(key) return redis.call('XRANGE', key, '-', '+') end,
  string = function(key) return redis.call('GET', key) end,
}
local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local name, kind = string.sub(key, #ARGV[1] + 1), redis.call('TYPE', key).ok
  if name ~= 'meta' and not string.find(name, '^once:') then
    found[#found + 1] = { name, kind, reads[kind](key) }
  end
end
return found
"""


def library(name: str, *, edges: bool) -> Library:
    """All scripts, with a clock that stands still; without edges where asked."""
    whole = next(iter(load_scripts().values())).library
    text = whole.text.replace(whole.name, name)
    remade = "local function note_remade(run, why)"  # a run whose writes raised: no fault is injected here
    changes = {"call('TIME')": "{ '1900000000', '0' }", remade: f"{remade} redis.call('SET', prefix .. 'remade', '1')"}
    if not edges:
        changes |= {head: f"{head} do return {value} end" for head, value in SWITCHED_OFF.items()}
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return replace(whole, name=name, text=text)


class Twin(RedisBackend):
    """A backend whose calls go to one of the two libraries."""

    def __init__(self, server: TestServer, *, edges: bool) -> None:
        super().__init__(Settings(url=server.url, namespace=f"e{uuid.uuid4().hex[:10]}"))
        name = "redisflow_edges" if edges else "redisflow_reducers"
        self.library = library(name, edges=edges)

    async def send(self, name: str, named: dict[str, Any], rest: list[Any]) -> Any:
        script = replace(self.scripts[name], library=self.library)
        given = {"epoch": self.epoch, **named}
        if script.repeatable:
            given.setdefault("request", uuid.uuid4().hex)
        return await self.server.call_once(script, self.partitions[0], script.pack(rest, **given))

    async def everything(self) -> dict[bytes, Any]:
        """Every key with what it holds, but for kept replies, which a random name tells apart."""
        everything: dict[bytes, Any] = {}
        for name, kind, value in await self.client.eval(EVERYTHING, 0, self.partitions[0].prefix):
            fields = dict(zip(value[::2], value[1::2], strict=True)) if kind == b"hash" else value
            everything[name] = counted(fields) if name.startswith(b"stats:") else fields
        return everything


def counted(fields: dict[bytes, bytes]) -> Rollups:
    """What the counters of a minute say: an edge counts the events of an entry together."""
    found = Rollups(0, 1, by_minute=[Counter()])
    for name, count in fields.items():
        found.add(0, name.decode(), int(count))
    return found


async def handover(messages: asyncio.Queue[bytes | None]) -> Handover:
    """The next, past wake-ups that bring nothing."""
    while not (message := await next_message(messages)).startswith(b"h"):
        pass
    return Handover.unpack(message[1:])


Claim = tuple[str, str, int, int]  # run, step, lease, attempt
MORE: tuple[dict[str, Any], ...] = ({}, {}, {}, {"p": 5}, {"tg": ["eu"]}, {"tm": 50 * SECOND}, {"dl": SECOND})


class Twins:
    """Both namespaces, and what a worker knows of them."""

    def __init__(self, server: TestServer, seed: int) -> None:
        self.random = random.Random(seed)
        self.twins = [Twin(server, edges=edges) for edges in (True, False)]
        self.numbers: dict[str, int] = {}
        self.runs: list[str] = []
        self.running: list[Claim] = []
        self.settled: list[Claim] = []
        self.seq = 0
        self.handed = 0
        self.handovers = self.told = 0
        self.messages: list[asyncio.Queue[bytes | None]] = [asyncio.Queue() for _ in self.twins]

    async def begin(self) -> None:
        for twin, messages in zip(self.twins, self.messages, strict=True):
            await twin.initialize()
            await twin.listener.subscribe(twin.partitions[0].wake_channel("w.x"), messages.put_nowait)
            for name, workflow in PLANS.items():
                number = await twin.plan_number(workflow, 0)
                assert self.numbers.setdefault(name, number) == number

    async def call(self, name: str, rest: list[Any], **named: Any) -> Any:
        one, other = [await twin.send(name, named, rest) for twin in self.twins]
        assert one == other
        return one

    async def submit(self, *, alone: bool = False) -> None:
        """Runs of one or two plans in a call; one alone may be handed over."""
        rest: list[Any] = []
        for _ in range(1 if alone else self.random.randint(1, 2)):
            envelope = pack({"pl": self.numbers[self.random.choice(list(PLANS))], **self.random.choice(MORE)})
            text = self.random.choice(TEXTS)
            for _ in range(1 if alone else self.random.randint(1, 3)):
                self.runs.append(f"r{len(self.runs)}.x")
                rest += [self.runs[-1], envelope, text]
        await self.call("submit", rest, **({"request": ""} if alone else {}))
        await self.receive()

    async def receive(self) -> None:
        """What was handed over, where it does not get lost."""
        for twin in self.twins:
            hand = await twin.client.hget(twin.partitions[0].prefix + "worker:w.x", "hand") or b""
            if not hand.startswith(b"h") or int(hand[1:17]) == self.told:
                return
        one, other = [await handover(messages) for messages in self.messages]
        assert one == other
        self.told = one.lease
        if self.random.random() < 0.7:
            self.take_over(one.lease, one.claimed)

    def take_over(self, lease: int, claimed: list[Any] | None) -> None:
        self.handed = lease
        self.handovers += claimed is not None
        if claimed is not None:
            self.running.append((claimed[0].decode(), claimed[1].decode(), lease, claimed[3]))

    async def lull(self) -> None:
        """Everything ends, the worker falls asleep, and runs come one by one."""
        for _ in range(3):
            for _ in range(6):
                await self.turn(calm=True)
            await self.submit(alone=True)

    async def turn(self, *, calm: bool = False) -> None:
        """Some of the running steps end, some are told twice, some that ended are told again; then a claim."""
        claims = [claim for claim in self.running if calm or self.random.random() < 0.6]
        claims += [self.random.choice(claims) for _ in range(self.random.choice([0, 0, 1])) if claims]
        claims += [self.random.choice(self.settled[-9:]) for _ in range(self.random.choice([0, 1])) if self.settled]
        self.random.shuffle(claims)
        outcomes = [part for claim in claims for part in self.outcome(claim)]
        want = 20 if calm else self.random.choice([0, 3, 20, 20])
        self.seq += 1
        reply = await self.call(
            "turn", outcomes, worker="w.x", lane=0, seq=self.seq, want=want, asleep=0,
            handed=self.handed if calm else self.random.choice([self.handed, -1]),
            queues=ALL_QUEUES if calm else self.random.choice(["*", "*", "*", "flow", "long,other", ALL_QUEUES]),
            slots=b"".join(SLOTS[:want]),
            body=pack({"wi": "w", "wc": 10})[1:],
        )  # fmt: skip
        self.settled += [claim for claim in self.running if claim in claims]
        self.running = [claim for claim in self.running if claim not in claims]
        for run_id, name, _, attempt, *_ in reply[5]:
            self.running.append((run_id.decode(), name.decode(), reply[1], attempt))
        if len(reply) > 6 and reply[6][0] > self.handed:
            self.take_over(reply[6][0], reply[6][2] if len(reply[6]) > 2 else None)

    def outcome(self, claim: Claim) -> list[Any]:
        run_id, name, lease, attempt = claim
        kind = self.random.choice("ccccccccffkl")
        if kind == "c":
            return completed(run_id, name, lease, attempt, self.random.choice(TEXTS) or "null")
        if kind == "f":
            data, error, _ = failure_parts(attempt, ERROR, PRINTS, 5, reason="execution-error")
            return [run_id, name, lease, "f", data, error, "execution-error 0.5 - 0"]
        if kind == "k":
            return [run_id, name, lease, "k", skip_data(attempt, "no", None), "", ""]
        return [run_id, name, lease, "l", "", "", "drain"]

    async def act(self) -> None:
        """What comes from elsewhere."""
        run_id = self.random.choice(self.runs)
        what = self.random.choice(["cancel", "retry", "resume", "reclaim", "travel"])
        if what == "travel":
            for twin in self.twins:
                await twin.client.hincrby(twin.partitions[0].meta, "skew", 60 * SECOND)
        elif what == "reclaim":
            await self.call(what, [], reclaimer="r", threshold=0, tick=0, draw="0.5")
        elif what == "resume":
            await self.call(what, [], run_id=run_id)
        else:
            await self.call(what, [], run_id=run_id, reason=pack({"r": "why"})[1:])

    async def compare(self) -> None:
        one, other = [await twin.everything() for twin in self.twins]
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value == other[name], name

    async def finish(self) -> list[Any]:
        """What verify says, and nothing is left."""
        found = []
        for twin in self.twins:
            found += [violation async for violation in Verifier(twin).check()]
            async for key in twin.client.scan_iter(match=f"{{{twin.namespace}*", count=1000):
                await twin.client.delete(key)
            await twin.close()
        return found


@pytest.mark.parametrize("seed", range(4))
async def test_edges_do_what_the_reducers_do(server: TestServer, seed: int) -> None:
    twins = Twins(server, seed)
    try:
        await twins.begin()
        await twins.submit()
        for _ in range(120):
            lulls = [twins.lull] * (twins.random.random() < 0.2)
            acts = [twins.act] * (twins.random.random() < 0.4)
            await twins.random.choice([twins.submit, *[twins.turn] * 4, *acts, *lulls])()
            await twins.compare()
        assert len(twins.settled) > 50
        assert twins.handovers > 3
    finally:
        assert await twins.finish() == []
