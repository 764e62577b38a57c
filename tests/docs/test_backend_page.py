"""docs/backend.md is what the code says, and its examples work."""

from __future__ import annotations

from abc import ABC
from collections.abc import Awaitable, Callable

import pytest

from redisflow.backend.base import Backend
from redisflow.backend.redis import RedisBackend
from redisflow.settings import Settings
from tests.conftest import assert_consistent
from tools.backend_page import GROUPS, PAGE, render


def test_the_committed_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `make docs` and commit docs/backend.md"


def test_every_method_is_on_the_page() -> None:
    methods = [name for name in dir(Backend) if not name.startswith("_")]
    text = render()
    assert len(methods) > 70
    assert [name for name in methods if text.count(f"### `{name}`\n") != 1] == []


def test_every_group_is_on_the_page() -> None:
    assert set(GROUPS) == set(Backend.__mro__) - {Backend, ABC, object}


@pytest.mark.parametrize("example", [example for _, example in GROUPS.values()], ids=lambda example: example.__name__)
async def test_the_examples_work(settings: Settings, example: Callable[[Backend], Awaitable[None]]) -> None:
    backend, after = RedisBackend(settings), RedisBackend(settings)
    await backend.initialize()
    try:
        await example(backend)
    finally:
        await backend.close()
    await after.initialize()
    try:
        await assert_consistent(after)
    finally:
        await after.close()
