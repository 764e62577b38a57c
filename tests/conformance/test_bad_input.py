"""Bad input on every method of the contract: a typed error that names the argument, and not a key has changed.

Every argument of every method is tried with all that it must not be in place of its good value, the others as they are; at last the
good call shows that nothing else was wrong with them. A method or an argument that is in no table fails the test.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from redisflow.backend.base import Backend
from redisflow.backend.redis.verify import Verifier
from redisflow.backend.redis.walk import WindowOptions
from redisflow.model.errors import InvalidArgument, UsageError
from redisflow.model.states import RunSubmission
from redisflow.settings import Settings
from tests.conformance.conftest import Contract
from tests.conformance.wrong_arguments import ELSEWHERE, GOOD, SHOP, WRONG, Part
from tests.flows import dumps

METHODS = [name for name in dir(Backend) if not name.startswith("_")]


def arguments_of(name: str) -> list[str]:
    found = []
    for parameter in inspect.signature(getattr(Backend, name)).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            found += list(WindowOptions.__annotations__)
        elif parameter.name != "self":
            found.append(parameter.name)
    return found


async def call(backend: Backend, name: str, arguments: dict[str, Any]) -> Any:
    answer = getattr(backend, name)(**arguments)
    return await answer if inspect.isawaitable(answer) else answer


async def snapshot(backend: Contract) -> dict[bytes, bytes]:
    """Every key of the namespace with its value."""
    keys = sorted([key async for key in backend.client.scan_iter(match=f"{{{backend.namespace}*", count=1000)])
    return await dumps(backend, keys)


def names(error: UsageError, argument: str) -> bool:
    """Whether an error names an argument."""
    if isinstance(error, InvalidArgument):
        return argument in (error.argument.split(".")[0], error.argument.split(".")[-1])
    return argument in str(error)


async def problem(backend: Contract, name: str, argument: str, wrong: Any) -> str:
    """What is amiss with the answer to a wrong call; "" where it is refused as it should be."""
    wrong, named = wrong if isinstance(wrong, Part) else (wrong, argument)
    shown = f"{name}({argument}={wrong!r:.60})"
    try:
        answer = await call(backend, name, {**GOOD[name], argument: wrong})
    except UsageError as error:
        return "" if names(error, named) else f"{shown} does not name it: {error}"
    except Exception as error:  # noqa: BLE001 - a wrong argument may raise anything where it is not looked at
        return f"{shown} raises {type(error).__name__}: {error}"
    return f"{shown} is taken: {answer!r:.60}"


@pytest.fixture
async def backend(settings: Settings) -> Any:
    """A namespace with a live, an ended and a failed run of a small workflow."""
    opened = Contract(settings.model_copy(update={"max_payload_bytes": 4096}))
    await opened.initialize()
    try:
        await opened.register_workflow(SHOP)
        for run_id in ("live", "ended", "failed"):
            await opened.submit_run(RunSubmission(workflow_slug="shop", input={"cents": 1}, run_id=run_id))
        await opened.cancel_run("ended")
        await opened.save_workflow_failed(
            "shop", "failed", ValueError("no"), workflow_attempt_number=1, duration_us=1, completed_steps=0,
            failure_reason="step-failed",
        )  # fmt: skip
        yield opened
    finally:
        await opened.close()


def test_every_method_has_a_case() -> None:
    assert set(GOOD) == set(METHODS)
    for name in METHODS:
        assert set(GOOD[name]) == set(arguments_of(name)), name
        assert set(GOOD[name]) <= set(WRONG), name
    assert all(argument in GOOD[name] for name, argument in ELSEWHERE)


@pytest.mark.parametrize("name", METHODS)
async def test_bad_input_is_refused_before_any_write(backend: Contract, name: str) -> None:
    before = await snapshot(backend)
    problems = []
    for argument in GOOD[name]:
        for wrong in ELSEWHERE.get((name, argument), WRONG[argument]):
            problems.append(await problem(backend, name, argument, wrong))
            after = await snapshot(backend)
            if after != before:
                problems.append(
                    f"{name}({argument}={wrong!r:.60}) has written {set(after.items()) ^ set(before.items())}"
                )
                before = after
    assert "\n".join(filter(None, problems)) == ""
    await call(backend, name, GOOD[name])
    if name != "close":  # a save advances nothing, so it may leave a run with nothing to do
        assert {violation.rule async for violation in Verifier(backend).check()} <= {"stranded"}
