"""Small plans, and short words for what tests do with a run: submit, claim, end a step, read its history.

`history` gives a run's events as `Type step`, so that a test reads like the table of transitions. Nothing
here waits: time passes by `travel`, which moves the skew that every script adds to the server's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redisflow.backend.keys import RUNNING_ANCHOR
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.header import StepField, parse_header, parse_step
from redisflow.backend.replies import Reply
from redisflow.backend.turns import SLOTS
from redisflow.backend.types import Claim, Settled, Submission
from redisflow.codec import pack
from redisflow.model.events import Event
from redisflow.model.retry import RetryPolicy, RetryTier
from redisflow.model.workflow import Edge, Plan, PlanStep

SECOND = 1_000_000
ERROR = {"name": "ValueError", "message": "boom"}
PRINTS = ["ab" * 20] * 5
ENDS = ("WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled")


def step(
    name: str,
    *needs: str,
    optional: Sequence[str] = (),
    after: Sequence[str] = (),
    slug: str = "flow",
    **options: Any,
) -> PlanStep:
    """A step that requires `needs`; `optional` and `after` are the weaker edges."""
    edges = [Edge(step=need, kind="required") for need in needs]
    edges += [Edge(step=need, kind="optional") for need in optional]
    edges += [Edge(step=need, kind="after") for need in after]
    options.setdefault("queue", slug)
    options.setdefault("retry", retry())
    return PlanStep(id=name, name=name, dependencies=tuple(edges), params=needs, **options)


def plan(*steps: PlanStep, slug: str = "flow", **options: Any) -> Plan:
    """A plan of these steps."""
    return Plan(slug=slug, name=slug, steps=steps, **options)


def retry(*tiers: RetryTier, attempts: int = 1, crashes: int = 3, delay_us: int = 0) -> RetryPolicy:
    """A policy without jitter: `attempts` with a delay, or the given tiers."""
    tiers = tiers or (RetryTier(attempts=attempts, delay_us=delay_us, jitter=0),)
    return RetryPolicy(tiers=tiers, crashes=crashes)


ONE = plan(step("a"))
CHAIN = plan(step("a"), step("b", "a"))
DIAMOND = plan(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
PAIR = plan(step("a"), step("b"))


def fan_out(width: int) -> Plan:
    """`width` roots."""
    return plan(*(step(f"s{i}") for i in range(width)))


def fan_in_and_out(width: int) -> Plan:
    """One root with `width` dependents, and one step that waits for them all."""
    middle = [f"s{i}" for i in range(width)]
    return plan(step("root"), *(step(name, "root") for name in middle), step("last", after=middle))


async def submit(backend: RedisBackend, workflow: Plan, **options: Any) -> str:
    """Id of a new run."""
    (result,) = await backend.submit(workflow, [Submission(**options)])
    assert result.is_new
    return result.run_id


async def start(backend: RedisBackend, workflow: Plan = ONE, name: str = "a", **options: Any) -> Claim:
    """A new run with one of its steps claimed."""
    return await claim(backend, await submit(backend, workflow, **options), name)


async def claim(backend: RedisBackend, run_id: str, name: str, worker: str = "w1") -> Claim:
    """The claim of a step that must be due."""
    found = await backend.claim_step(run_id, name, worker)
    assert found is not None, f"{name} of {run_id} could not be claimed"
    return found


async def complete(backend: RedisBackend, run_id: str, *names: str) -> None:
    """Claim and complete steps one after the other."""
    for name in names:
        done(await backend.complete_step(await claim(backend, run_id, name), f'"{name}"'))


async def fail(backend: RedisBackend, claimed: Claim, **options: Any) -> Settled:
    """The claimed step fails."""
    return await backend.fail_step(claimed, ERROR, PRINTS, **options)


async def release_unknown(backend: RedisBackend, claimed: Claim, patience_us: int) -> Settled:
    """Hand a step back as a worker does that has no code for it."""
    from redisflow.backend.redis.steps import parse_answer

    reply = await backend.call(
        "release", backend.partition(claimed.run_id), run_id=claimed.run_id, step=claimed.step_id,
        lease=claimed.lease, data=b"", payload="", how=f"unknown {patience_us}",
    )  # fmt: skip
    return parse_answer(reply[0])


def done(settled: Settled) -> None:
    """The outcome was taken."""
    assert settled.reply is Reply.OK, settled


async def history(backend: RedisBackend, run_id: str) -> list[str]:
    """Events in stream order, each as `Type` or `Type step`."""
    return [f"{e['type']} {e.get('stepId', '')}".strip() for e in await backend.load_wire_events(run_id)]


async def typed(backend: RedisBackend, run_id: str, *types: str) -> list[Any]:
    """Events of some types, parsed."""
    slug = await slug_of(backend, run_id)
    events: list[Event] = await backend.load_events(slug, run_id, types=types or None)
    return events


async def slug_of(backend: RedisBackend, run_id: str) -> str:
    """The workflow of a run."""
    state = await backend.get_run(run_id)
    assert state is not None
    return state.workflow_slug


async def status(backend: RedisBackend, run_id: str) -> str:
    """The run's status; "" where there is no such run."""
    state = await backend.get_run(run_id)
    return state.status if state else ""


async def statuses(backend: RedisBackend, run_id: str) -> dict[str, str]:
    """Status of each step that has events."""
    return {name: state.status for name, state in (await backend.load_step_states(run_id)).items()}


async def field(backend: RedisBackend, run_id: str, name: str) -> StepField:
    """What the run's hash says of a step."""
    raw = await backend.client.hget(backend.keys_of(run_id).run(run_id), f"s:{name}")  # type: ignore[misc]
    return parse_step(raw)


async def header(backend: RedisBackend, run_id: str) -> Any:
    """What the run's hash says of the run."""
    return parse_header(await backend.client.hget(backend.keys_of(run_id).run(run_id), "h"))  # type: ignore[misc]


async def scores(backend: RedisBackend, key: str) -> dict[str, int]:
    """Members of a sorted set."""
    found = await backend.client.zrange(key, 0, -1, withscores=True)
    return {member.decode(): int(score) for member, score in found if member.decode() != RUNNING_ANCHOR}


async def travel(backend: RedisBackend, micros: int, partition: int = 0) -> None:
    """Let time pass for the scripts of a partition."""
    await backend.client.hincrby(backend.partitions[partition].meta, "skew", micros)  # type: ignore[misc]


async def reclaim(backend: RedisBackend, threshold_us: int = 0, **options: Any) -> Any:
    """One round of the reclaimer over the first partition."""
    return await backend.reclaim_round(0, threshold_us=threshold_us, reclaimed_by="r1", **options)


async def turn(
    backend: RedisBackend, seq: int, want: int = 0, outcomes: Sequence[Any] = (), *, worker: str = "w1.x",
    lane: int = 0, queues: str = "*", partition: int = 0, asleep: int = 0, handed: int = -1,
) -> list[Any]:  # fmt: skip
    """One turn of a worker, as its link sends it; the reply as it comes."""
    return await backend.call(
        "turn", partition, list(outcomes), worker=worker, lane=lane, seq=seq, want=want, queues=queues,
        slots=b"".join(SLOTS[:want]),
        body=pack({"wi": worker, "wc": 10})[1:], asleep=asleep, handed=handed,
    )  # fmt: skip


async def next_message(messages: asyncio.Queue[bytes | None]) -> bytes:
    """The next wake-up; a look again, of a subscription that was mended, is none."""
    async with asyncio.timeout(5):
        while not (message := await messages.get()):
            pass
    return message


def completed(run_id: str, name: str, lease: int, attempt: int = 1, output: str = "1") -> list[Any]:
    """A completion as a turn carries it."""
    return [run_id, name, lease, "c", pack({"a": attempt, "d": 5, "x": False}), output, ""]


def pack_entry(*events: tuple[str, str, bytes, str]) -> list[bytes]:
    """Fields and values of a stream's entry, of events each given as type, step, envelope and payload."""
    parts = []
    for kind, step_id, data, payload in events:
        parts += [kind.encode(), step_id.encode() + b"\0" + data + payload.encode()]
    return parts


async def snapshot(backend: RedisBackend) -> dict[bytes, bytes]:
    """Every key as Redis dumps it, save what each call may touch: the clock, kept replies, and counters of the minute."""
    found: list[bytes] = []
    for keys in backend.partitions:
        async for key in backend.client.scan_iter(match=f"{keys.prefix}*", count=1000):
            name = key.decode()[len(keys.prefix) :]
            if name != "meta" and not name.startswith(("once:", "probe", "stats:")):
                found.append(key)
    return await dumps(backend, found)


async def dumps(backend: RedisBackend, keys: Sequence[bytes]) -> dict[bytes, bytes]:
    """Keys as Redis dumps them, in one round trip."""
    pipe = backend.client.pipeline(transaction=False)
    for key in keys:
        pipe.dump(key)
    return dict(zip(keys, await pipe.execute(), strict=True))
