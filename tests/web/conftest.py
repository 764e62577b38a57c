"""The application over a real backend, called through ASGI as a browser or a program calls it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from redisflow import Client, Retry, Skip, StepContext, Worker, Workflow
from redisflow.web import WebOptions, create_app
from redisflow.web.access import Tokens

WRITER, READER = "writer-token-0123456789", "reader-token-0123456789"
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[31m"

shop = Workflow("shop", input=dict, on_error="finish")


@shop.step
async def price(input: dict, ctx: StepContext) -> int:
    print(f"price of {input.get('name')}")
    return int(input.get("cents", 1))


@shop.step(retry=Retry(attempts=2, delay="1ms"))
async def charge(input: dict, price: int, ctx: StepContext) -> str:
    if input.get("fail") or (input.get("flaky") and ctx.attempt == 1):
        raise ValueError(str(input.get("fail") or "flaky"))
    return f"{price} cents {input.get('name')}"


@shop.step
async def wrap(price: int) -> str:
    raise Skip("no gift")


@shop.step(export=True)
async def ship(charge: str, wrap: str = "plain") -> str:
    return f"{charge} {wrap}"


class Browser:
    """A person in front of the pages: keeps cookies, sends forms with the CSRF token of the page before."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def get(self, path: str, status: int = 200) -> str:
        answer = await self.http.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    async def post(self, path: str, page: str, status: int = 303, **fields: Any) -> httpx.Response:
        """Send a form of a page."""
        token = re.search(r'name="csrf" value="([^"]+)"', await self.get(page))
        assert token, f"{page} has no form"
        answer = await self.http.post(path, data={"csrf": token[1], **fields})
        assert answer.status_code == status, answer.text
        return answer


Open = Callable[..., Awaitable[httpx.AsyncClient]]


@pytest.fixture
async def open_app(client: Client) -> AsyncIterator[Open]:
    """`await open_app(WebOptions(…))`: an HTTP client of a fresh application."""
    async with AsyncExitStack() as stack:

        async def open_one(options: WebOptions | None = None, **more: Any) -> httpx.AsyncClient:
            app = create_app(client, options or WebOptions(poll=0.01, refresh=0.05))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            http = httpx.AsyncClient(transport=transport, base_url="http://localhost", **more)
            http.app = app  # type: ignore[attr-defined]
            return await stack.enter_async_context(http)

        yield open_one


@pytest.fixture
async def http(open_app: Open) -> httpx.AsyncClient:
    return await open_app()


@pytest.fixture
async def browser(http: httpx.AsyncClient) -> Browser:
    return Browser(http)


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    path = tmp_path / "tokens"
    path.write_text(f"# who\nwanda write {WRITER}\n\nrita read {READER}\n")
    return Tokens.load(path)


@asynccontextmanager
async def worker(client: Client) -> AsyncIterator[Worker]:
    async with Worker(client, [shop], concurrency=8) as running:
        yield running


async def ended(client: Client, **input: Any) -> str:
    """Id of a run that a real worker has brought to its end."""
    run = await client.submit(shop, input)
    async with worker(client):
        await client.backend.wait_for(run.id, 20)
    return run.id


async def audits(client: Client, run_id: str) -> list[dict[str, Any]]:
    return [wire for wire in await client.backend.load_wire_events(run_id) if wire["type"] == "x.audit"]


class Stream:
    """A `text/event-stream` read straight from the application, since httpx's ASGI transport gives bodies only at their end."""

    def __init__(self, app: Any, path: str, headers: dict[str, str] | None = None) -> None:
        self._app = app
        self._path, _, self._query = path.partition("?")
        self._headers = {"host": "localhost", "accept": "text/event-stream", **(headers or {})}
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._gone = asyncio.Event()
        self._buffer = ""
        self.status = 0

    async def __aenter__(self) -> Stream:
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": self._path, "raw_path": self._path.encode(), "query_string": self._query.encode(), "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in self._headers.items()],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        }  # fmt: skip

        async def receive() -> Any:
            await self._gone.wait()
            return {"type": "http.disconnect"}

        self._task = asyncio.create_task(self._app(scope, receive, self._sent.put))
        self.status = (await self._sent.get())["status"]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._gone.set()
        await asyncio.wait_for(asyncio.gather(self._task, return_exceptions=True), 10)

    async def next(self, *kinds: str) -> dict[str, str]:
        """The next message of these kinds (`message` where it has no event)."""
        while True:
            while "\n\n" not in self._buffer:
                part = await asyncio.wait_for(self._sent.get(), 20)
                if not part.get("more_body"):
                    return {"event": "end"}
                self._buffer += part["body"].decode()
            text, _, self._buffer = self._buffer.partition("\n\n")
            found: dict[str, str] = {"event": "message"}
            for line in text.split("\n"):
                name, _, value = line.partition(": ")
                found[name] = f"{found[name]}\n{value}" if name == "data" and "data" in found else value
            if "data" in found and (not kinds or found["event"] in kinds):
                return found
