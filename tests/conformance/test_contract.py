"""The contract's text names methods; every one of them is on `Backend`, and the Redis backend has them all."""

from __future__ import annotations

import inspect
import re

from redisflow.backend.base import Backend
from tests.conformance.conftest import DATA, Contract

VERBS = (
    "append|batch|backend|calculate|cancel|claim|close|copy|create|delete|get|initialize|is|list|load|reclaim|register|rerun|run"
    "|save|submit"
)
ARGUMENTS = {"run_ids"}
MISSING: set[str] = set()
"""Named by the contract and not there yet: it must say exactly what is."""


def named() -> set[str]:
    """Names in backticks that begin like a method: `get_run(run_id)`, `save_workflow_start`."""
    text = (DATA / "CONTRACT.md").read_text(encoding="utf-8").partition("## A.")[2]
    found = re.findall(rf"`((?:{VERBS})(?:_[a-z_]+|(?=\()))(?=[`(])", text)
    return set(found) - ARGUMENTS


def test_every_named_method_is_declared() -> None:
    assert len(named()) > 70
    assert {name for name in named() if not hasattr(Backend, name)} == MISSING


def test_the_redis_backend_implements_all_of_it() -> None:
    assert not Contract.__abstractmethods__  # type: ignore[attr-defined]


def test_methods_are_async_and_documented() -> None:
    for name in named() - MISSING:
        method = getattr(Backend, name)
        assert method.__doc__, name
        assert inspect.iscoroutinefunction(method) == (name != "get_step_output_path"), name


def test_implementations_take_what_the_contract_says() -> None:
    for name in named() - MISSING:
        declared = inspect.signature(getattr(Backend, name)).parameters
        actual = inspect.signature(getattr(Contract, name)).parameters
        assert list(actual)[: len(declared)] == list(declared), name
        for parameter in declared:
            assert actual[parameter].kind == declared[parameter].kind, (name, parameter)
