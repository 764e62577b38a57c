"""Workflows that do nothing, so that only redisflow is measured."""

from __future__ import annotations

from redisflow import Workflow

one = Workflow("bench-one")


@one.step
async def noop() -> None:
    """Nothing."""


chain = Workflow("bench-chain")


@chain.step
async def first() -> None:
    """Nothing."""


@chain.step
async def second(first: None) -> None:
    """Nothing."""


@chain.step
async def third(second: None) -> None:
    """Nothing."""
