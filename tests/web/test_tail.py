"""The tail: every event once, in order, over reconnects; and what it costs Redis does not grow with those who watch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from redisflow import Client
from redisflow.backend.redis.glance import last_stream_id
from redisflow.web import WebOptions
from redisflow.web.app import close_tails
from redisflow.web.hub import REMEMBERED, Hub
from tests.conftest import eventually
from tests.web.conftest import Open, Stream, ended, shop, worker


async def stream_ids(client: Client, run_id: str) -> list[str]:
    return [stream_id.decode() async for stream_id, _ in client.backend.read_stream(run_id)]


async def logs(client: Client, run_id: str, count: int, first: int = 0) -> None:
    await client.backend.save_step_logs(
        "shop",
        run_id,
        "price",
        [
            {"timestamp": 1_790_000_000_000_000 + n, "stream": "stdout", "message": f"line {n}", "attempt_number": 1}
            for n in range(first, first + count)
        ],
    )


async def test_a_viewer_who_was_away_goes_on_without_gap_or_double(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {})
    seen: list[str] = []
    path = f"/runs/{run.id}/live"
    async with Stream(http.app, path) as stream:  # type: ignore[attr-defined]
        for _ in range(3):
            seen.append((await stream.next("event", "log"))["id"])
            await logs(client, run.id, 1, len(seen))
    await logs(client, run.id, 40, 100)  # nobody looks
    async with worker(client):
        async with Stream(http.app, path, {"last-event-id": seen[-1]}) as stream:  # type: ignore[attr-defined]
            while len(seen) < 30:
                seen.append((await stream.next("event", "log"))["id"])
        await client.backend.wait_for(run.id, 20)
    wanted = await stream_ids(client, run.id)
    async with Stream(http.app, path, {"last-event-id": seen[-1]}) as stream:  # type: ignore[attr-defined]
        while len(seen) < len(wanted):
            seen.append((await stream.next("event", "log"))["id"])
    assert seen == wanted


async def test_viewers_of_any_place_get_the_same_while_events_pour_in(client: Client) -> None:
    hub = Hub(client.backend, 0.001)
    reader = asyncio.create_task(hub.run())
    run = await client.submit(shop, {})
    await logs(client, run.id, 700)
    places = (await stream_ids(client, run.id))[::100]
    total = 1 + len(await stream_ids(client, run.id)) + 10 * 200 - 1

    async def watch(after: str) -> list[str]:
        found: list[str] = []
        async for stream_id, _ in hub.tail(run.id, after):
            found.append(stream_id)
            if len(found) + known.index(after) + 1 == total:
                return found
        return found

    known = await stream_ids(client, run.id)
    viewers = [asyncio.create_task(watch(after)) for after in places]
    for n in range(10):
        await logs(client, run.id, 200, 1000 + n * 200)
        await asyncio.sleep(0)
    everything = await stream_ids(client, run.id)
    assert len(everything) == total > 2 * REMEMBERED
    for after, viewer in zip(places, viewers, strict=True):
        assert await asyncio.wait_for(viewer, 30) == everything[everything.index(after) + 1 :]
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert hub._feeds == {}


async def commands(client: Client) -> int:
    """Commands that the server has run, those of the question left out."""
    stats = await client.backend.client.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name not in ("cmdstat_info", "cmdstat_ping"))


@pytest.mark.parametrize("viewers", [1, 200])
async def test_two_hundred_viewers_cost_redis_what_one_does(client: Client, viewers: int) -> None:
    hub = Hub(client.backend, 0.01)
    run = await client.submit(shop, {})
    cursor = await last_stream_id(client.backend, run.id)
    got = [0] * viewers

    async def watch(number: int) -> None:
        async for _ in hub.tail(run.id, cursor):
            got[number] += 1

    async with AsyncExitStack() as stack:
        tasks = [asyncio.create_task(watch(n)) for n in range(viewers)]
        stack.callback(lambda: [task.cancel() for task in tasks])
        await eventually(lambda: run.id in hub._feeds and len(hub._feeds[run.id].listeners) == viewers)
        before = await commands(client)
        for n in range(10):
            await logs(client, run.id, 5, n * 5)
            await hub.round()
        await eventually(lambda: got == [50] * viewers)
        spent = await commands(client) - before
        assert 10 <= spent <= 10 * 60, "ten rounds, and what ten writes of the test take"
        costs[viewers] = spent
    await asyncio.gather(*tasks, return_exceptions=True)
    if len(costs) == 2:
        assert costs[200] == costs[1]


costs: dict[int, int] = {}


async def test_a_deleted_run_ends_its_tail(client: Client) -> None:
    run_id = await ended(client)
    hub = Hub(client.backend, 0.001)
    reader = asyncio.create_task(hub.run())
    count = len(await stream_ids(client, run_id))
    found: list[Any] = []

    async def watch() -> None:
        async for item in hub.tail(run_id):
            found.append(item)
            if len(found) == count:
                await client.backend.delete_run(run_id)

    await asyncio.wait_for(watch(), 20)
    assert len(found) == count
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)


async def test_one_part_is_rendered_for_all(client: Client, open_app: Open) -> None:
    http = await open_app()
    run = await client.submit(shop, {})
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(Stream(http.app, f"/runs/{run.id}/live"))  # type: ignore[attr-defined]
            for _ in range(20)
        ]
        parts = [(await stream.next("part"))["data"] for stream in streams]
        assert all("s-scheduled" in part for part in parts)
        boards = http.app.state.desk.boards._boards  # type: ignore[attr-defined]
        assert list(boards) == [f"run {run.id}"]
        async with worker(client):
            for stream in streams:
                while 'data-status="completed"' not in (await stream.next("part"))["data"]:
                    pass
    await eventually(lambda: not boards)


async def test_a_wrong_place_is_refused(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {})
    for wrong in ("x", "1-x", "-1", "1-", "9" * 30):
        answer = await http.get(f"/runs/{run.id}/live", params={"after": wrong})
        assert answer.status_code == 400, wrong


async def test_all_streams_end_with_the_application(client: Client, open_app: Open) -> None:
    """Also while a part is just being waited for and rendered: a server must be able to stop under its viewers."""
    for _ in range(8):
        http = await open_app(WebOptions(poll=0.001, refresh=0.001))
        run = await client.submit(shop, {})
        async with Stream(http.app, f"/runs/{run.id}/live") as stream:  # type: ignore[attr-defined]
            await stream.next("part")
            await asyncio.wait_for(close_tails(http.app.state.desk), 10)  # type: ignore[attr-defined]
            while (await stream.next())["event"] != "end":
                pass
