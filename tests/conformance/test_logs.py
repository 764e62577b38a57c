"""Lines that steps wrote: their own time, their attempt, and None where there are none."""

from __future__ import annotations

import pytest

from redisflow.backend.base import Backend
from redisflow.model.errors import InvalidArgument
from redisflow.model.states import StepLog

T = 1_700_000_000_000_000
AT = ("flow", "r1")


def line(message: str, at: int = T, attempt: int = 1) -> StepLog:
    return StepLog(timestamp=at, stream="stdout", message=message, attempt_number=attempt)


@pytest.fixture
async def started(contract: Backend) -> Backend:
    await contract.save_workflow_start(
        *AT, version_id="v1", workflow_attempt_number=1, has_input_schema=False, has_input=False
    )
    await contract.save_step_start(*AT, "a", "w1", dependencies=[], attempt_number=1)
    return contract


async def test_there_are_none(contract: Backend) -> None:
    assert await contract.load_step_logs(*AT, "a") is None


async def test_none_of_this_step_or_attempt(started: Backend) -> None:
    assert await started.load_step_logs(*AT, "a") is None
    await started.save_step_logs(*AT, "a", [line("one")])
    assert await started.load_step_logs(*AT, "b") is None
    assert await started.load_step_logs(*AT, "a", 2) is None
    with pytest.raises(InvalidArgument, match="attempt_number"):
        await started.load_step_logs(*AT, "a", "1")  # type: ignore[arg-type]


async def test_lines_keep_time_stream_and_attempt(started: Backend) -> None:
    lines = [line("one", T + 2), line("two", T + 1, attempt=2)]
    await started.save_step_logs(*AT, "a", lines)
    assert await started.load_step_logs(*AT, "a") == [lines[1], lines[0]]
    assert await started.load_step_logs(*AT, "a", attempt_number=2) == [lines[1]]


async def test_no_lines_write_nothing(started: Backend) -> None:
    before = await started.load_events(*AT)
    await started.save_step_logs(*AT, "a", [])
    assert await started.load_events(*AT) == before


async def test_lines_of_a_completion_stand_before_it_with_its_attempt(started: Backend) -> None:
    plain = {"timestamp": T, "stream": "stderr", "message": "x", "attempt_number": 9}
    await started.save_step_complete(*AT, "a", 1, duration_us=1, attempt_number=1, logs=[plain])
    assert await started.load_step_logs(*AT, "a") == [
        StepLog(timestamp=T, stream="stderr", message="x", attempt_number=1)
    ]
    ids = {event.type: int(event.event_id) for event in await started.load_events(*AT)}
    assert ids["LogEntry"] < ids["StepCompleted"]


async def test_logs_are_no_part_of_the_projection(started: Backend) -> None:
    await started.save_step_logs(*AT, "a", [line("one")])
    await started.save_step_logs(*AT, "b", [line("only a line")])
    found = await started.load_step_events_for_projection(*AT)
    assert {step: [event.type for event in events] for step, events in found.items()} == {"a": ["StepStarted"]}
