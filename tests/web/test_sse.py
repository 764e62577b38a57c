"""Streams of several sources: where one fails, the whole ends, so that the browser comes back instead of watching half."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from redisflow.web.sse import merged


async def steady() -> AsyncIterator[str]:
    while True:
        yield "part"
        await asyncio.sleep(0)


async def broken() -> AsyncIterator[str]:
    yield "event"
    raise RuntimeError("a bug")


async def test_a_source_that_fails_ends_the_whole(caplog: pytest.LogCaptureFixture) -> None:
    async with asyncio.timeout(20):
        found = [text async for text in merged(steady(), broken())]
    assert "event" in found
    assert "a live stream failed" in caplog.text
