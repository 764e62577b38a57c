"""Submissions under way at once: few calls for all of them, and for each its own result or error."""

from __future__ import annotations

import asyncio

from redisflow import Client, Workflow
from redisflow.client import Run
from redisflow.model.errors import InvalidArgument, InvalidInput, RunExists, ServerUnavailable

flow = Workflow("coalesced", input=int)


@flow.step
async def double(input: int) -> int:
    """Twice the input."""
    return 2 * input


other = Workflow("coalesced-too")


@other.step
async def nothing() -> None:
    """Nothing."""


async def calls(client: Client) -> int:
    """Scripts that the server ran so far."""
    stats = await client.backend.client.info("commandstats")
    return int(stats["cmdstat_fcall"]["calls"])


async def test_many_at_once_are_a_few_calls(client: Client) -> None:
    await client.submit(flow, 0)
    before = await calls(client)
    runs = await asyncio.gather(*(client.submit(flow, number) for number in range(200)))
    assert await calls(client) - before <= 4
    assert len({run.id for run in runs}) == 200
    assert all(run.is_new for run in runs)
    inputs = {(await client.backend.load_wire_events(run.id))[0]["input"] for run in runs}
    assert inputs == {str(number) for number in range(200)}


async def test_those_that_an_answer_wakes_go_out_together(client: Client) -> None:
    """And two calls share what is under way, so that neither side waits for the other."""
    await client.submit(flow, 0)
    before = await calls(client)

    async def some() -> None:
        for number in range(20):
            await client.submit(flow, number)

    await asyncio.gather(*(some() for _ in range(50)))
    assert 20 <= await calls(client) - before <= 60


async def test_each_has_its_own_error(client: Client) -> None:
    await client.submit(flow, 0, run_id="taken")
    found = await asyncio.gather(
        client.submit(flow, 1),
        client.submit(flow, 2, run_id="taken"),
        client.submit(flow, 3, priority=500),
        client.submit(flow, 4, run_id="mine"),
        client.submit(flow, "no number"),  # type: ignore[arg-type]
        client.submit(flow, 5, run_id="mine"),
        client.submit(other),
        return_exceptions=True,
    )
    kinds = [type(each) for each in found]
    assert kinds == [Run, RunExists, InvalidArgument, Run, InvalidInput, RunExists, Run]
    assert (await client.status("mine")).status == "pending"


async def test_one_key_at_once_is_one_run(client: Client) -> None:
    runs = await asyncio.gather(*(client.submit(flow, 1, key="order-1") for _ in range(50)))
    assert len({run.id for run in runs}) == 1
    assert sum(run.is_new for run in runs) == 1


async def test_a_cancelled_submission_holds_up_no_other(client: Client) -> None:
    tasks = [asyncio.ensure_future(client.submit(flow, number)) for number in range(10)]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(each) for each in found].count(Run) >= 8
    assert (await client.submit(flow, 1)).is_new


async def test_all_hear_of_a_closed_client(client: Client) -> None:
    tasks = [asyncio.ensure_future(client.submit(flow, number)) for number in range(5)]
    await asyncio.gather(*tasks)
    apart = Client(settings=client.settings)
    await apart.open()
    await apart.submit(flow, 1)
    await apart.close()
    found = await asyncio.gather(*(apart.submit(flow, number) for number in range(3)), return_exceptions=True)
    assert [type(each) for each in found] == [ServerUnavailable] * 3
