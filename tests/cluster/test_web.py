"""The dashboard and the API over three nodes: every page, and a live tail that ends with its run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from redisflow import Client
from redisflow.web import WebOptions, create_app
from tests.web.conftest import Stream, ended, shop, worker


@pytest.fixture
async def http(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(client, WebOptions(poll=0.01, refresh=0.05))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as one,
    ):
        one.app = app  # type: ignore[attr-defined]
        yield one


async def test_every_page_over_all_nodes(client: Client, http: httpx.AsyncClient) -> None:
    runs = await client.submit_many(shop, [{"fail": "no stock"} if n % 3 == 0 else {"n": n} for n in range(12)])
    assert len({client.backend.partition(run.id) for run in runs}) > 3
    async with worker(client):
        for run in runs:
            await client.backend.wait_for(run.id, 20)
    failed = (await client.backend.get_errors_list(limit=1)).errors[0]
    assert failed.count == 8, "two attempts of each"
    for path, shown in (
        ("/?window=1h", "12 ended in 1h"), ("/runs", "12 runs"), ("/runs?id=zz&since=1h", "of 12 runs"),
        (f"/runs?id={runs[3].id}", runs[3].id), (f"/runs/{runs[3].id}", "no stock"), ("/errors", "no stock"),
        (f"/errors/{failed.fingerprint}", "no stock"), ("/workflows", "shop"), ("/workflows/shop", "price"),
        ("/queues", "Queues"), ("/workers", "Workers"), ("/api/v1/runs", '"total":12'), ("/api/v1/queues", "queues"),
    ):  # fmt: skip
        answer = await http.get(path)
        assert answer.status_code == 200, answer.text
        assert shown in answer.text, path


async def test_a_run_is_watched_live(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {"name": "ada"})
    other = await ended(client)
    for run_id in (run.id, other):
        seen = []
        async with Stream(http.app, f"/runs/{run_id}/live") as stream, worker(client):  # type: ignore[attr-defined]
            await client.backend.wait_for(run_id, 20)
            wanted = [stream_id.decode() async for stream_id, _ in client.backend.read_stream(run_id)]
            while len(seen) < len(wanted):
                seen.append((await stream.next("event", "log"))["id"])
        assert seen == wanted
