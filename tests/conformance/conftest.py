"""A backend seen as its contract only, on a fresh namespace."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from redisflow.backend.redis import RedisBackend
from redisflow.settings import Settings
from tests.conftest import assert_consistent

DATA = Path(__file__).parents[1] / "data"
CASES: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "projections.jsonl").read_text(encoding="utf-8").split("\n") if line.strip()
]


class Contract(RedisBackend):
    """All roles of the backend, held to the contract's abstract methods."""


@pytest.fixture
async def contract(settings: Settings) -> AsyncIterator[Contract]:
    """At the end the keys must be what the streams imply."""
    opened = Contract(settings)
    await opened.initialize()
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


@pytest.fixture
async def parted(settings: Settings) -> AsyncIterator[Contract]:
    """The same over four partitions."""
    opened = Contract(settings.model_copy(update={"partitions": 4}))
    await opened.initialize()
    try:
        yield opened
        await assert_consistent(opened)
    finally:
        await opened.close()


@pytest.fixture
async def unchecked(settings: Settings) -> AsyncIterator[Contract]:
    """For a test that looks at the keys itself."""
    opened = Contract(settings)
    await opened.initialize()
    yield opened
    await opened.close()
