"""A slot whose migration broke off: part of a partition's keys is elsewhere, and no script may take the rest for the whole."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from redisflow import Client, Reclaimer, StepContext, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim
from redisflow.codec import pack
from redisflow.model.errors import PartitionTorn
from tests.clusters import Node, TestCluster
from tests.conftest import assert_consistent, eventually
from tests.faults.load import spread_settings
from tests.flows_worker import brisk

late = Workflow("late", input=int, timeout="50ms")
wide = Workflow("wide", input=int)
counted = Workflow("counted", input=int, output=int)


@late.step
async def never_in_time(number: int) -> None: ...


@counted.step(export=True)
async def count(number: int, ctx: StepContext) -> int:
    return ctx.attempt


def part(number: int) -> Any:
    async def body(input: int) -> None: ...

    body.__name__ = f"part{number}"
    return body


for _number in range(600):  # more than one call schedules, so that its run stands in `expand`
    wide.step(part(_number))


def dump_of(node: Node, prefix: str) -> dict[bytes, Any]:
    """Every key of a partition on a node, save counters and kept replies."""
    with node.client() as control:
        names = [name for name in control.scan_iter(match=f"{prefix}*", count=1000) if b":once:" not in name]
        return {name: control.dump(name) for name in names}


async def turn(backend: RedisBackend, want: int, outcomes: list[Any] | None = None) -> list[Any]:
    script, keys = backend.scripts["turn"], backend.partitions[0]
    argv = script.pack(
        outcomes or [], epoch=backend.epoch, worker="w1.x", lane=0, seq=1, want=want, queues="brisk", asleep=0, handed=-1,
        slots=b"\xcd\0\0" * want, body=pack({"wi": "w1", "wc": 1})[1:],
    )  # fmt: skip
    return await backend.server.call_once(script, keys, argv)


def outcome_of(claim: Claim) -> list[Any]:
    return [claim.run_id, claim.step_id, claim.lease, "c", pack({"a": 1, "d": 5, "x": False}), "1", ""]


async def test_what_is_left_of_a_torn_partition_is_not_touched(
    three_nodes: TestCluster, caplog: pytest.LogCaptureFixture
) -> None:
    settings = spread_settings(three_nodes.url, partitions=1, stale_after="1s", retry_deadline="300ms")
    async with Client(settings=settings) as client:
        backend = client.backend
        keys = backend.partitions[0]
        held = await client.submit(counted, 1)
        claim = await backend.claim_step(held.id, "count", "w0.x")
        assert claim is not None
        runs = [await client.submit(brisk, number) for number in range(20)]
        runs += [await client.submit(late, 1), await client.submit(wide, 1)]
        home = three_nodes.owner(keys.meta)
        away = next(node for node in three_nodes.primaries if node is not home)
        moved = [held, *runs[:10], *runs[-2:]]
        three_nodes.tear([name for run in moved for name in (keys.run(run.id), keys.events(run.id))], away)
        before = dump_of(home, keys.prefix)

        assert await turn(backend, 1) == [Reply.TORN]
        assert await turn(backend, 0, outcome_of(claim)) == [Reply.TORN]
        for call in (
            backend.complete_step(claim, "1"),
            backend.reclaim_round(0, threshold_us=0, reclaimed_by="r"),
            backend.sweep_round(0, retention_us=10**12),
        ):
            with pytest.raises(PartitionTorn, match="are missing: finish or mend the slot's migration"):
                await call
        assert dump_of(home, keys.prefix) == before

        sidecar = Reclaimer(client)
        upkeep = asyncio.create_task(sidecar.run())
        with caplog.at_level(logging.ERROR, "redisflow.backend"):
            async with Worker(client, [brisk, late, wide, counted], concurrency=10):
                await eventually(lambda: caplog.text.count("TORN; repeating the turn") >= 2, 20)
                assert not any(b":ended" in name for name in dump_of(home, keys.prefix))
                three_nodes.migrate(keys.meta, away)
                for run in runs[:20]:
                    assert isinstance(await run.result(timeout=30), int)
                assert await held.result(timeout=30) == 2  # whoever had claimed it never came back
                await eventually(lambda: _is(runs[-1], "completed"), 30)
                await eventually(lambda: _is(runs[-2], "failed"), 30)
        sidecar.stop()
        await upkeep
        await assert_consistent(backend)


async def _is(run: Any, status: str) -> bool:
    return bool((await run.status()).status == status)
