"""logs: what steps wrote, of one step or attempt, as it is or to the end of the run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.codec import pack
from redisflow.settings import Settings
from tests.cli.conftest import Call
from tests.flows import PAIR, complete, submit


async def say(backend: RedisBackend, run_id: str, step: str, *lines: str, attempt: int = 1, to: str = "stdout") -> None:
    """Lines of a step, as a worker's output becomes them."""
    rest: list[Any] = []
    for line in lines:
        rest += [run_id, "LogEntry", step, pack({"a": attempt, "st": to, "m": line}), "", ""]
    await backend.call("append", backend.partition(run_id), rest)


def told(out: str) -> list[str]:
    """The lines without their time."""
    return [line.partition("  ")[2] for line in out.splitlines()]


async def test_logs(rf: Call, backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await say(backend, run_id, "a", "one", "[b]two\x1b[31m")
    await say(backend, run_id, "a", "three", attempt=2, to="stderr")
    await say(backend, run_id, "b", "four")

    async def call(*arguments: str) -> Any:
        return await asyncio.to_thread(rf, "logs", run_id, *arguments)

    assert told((await call()).out) == ["a  one", "a  [b]two\\x1b[31m", "a  attempt 2  three", "b  four"]
    assert told((await call("a")).out) == ["one", "[b]two\\x1b[31m", "attempt 2  three"]
    assert told((await call("a", "--attempt", "2")).out) == ["attempt 2  three"]
    assert (await call("b", "--attempt", "9")).out == ""
    wires = [json.loads(line) for line in (await call("--json")).out.splitlines()]
    assert [(wire["type"], wire["stream"], wire["message"]) for wire in wires][1:3] == [
        ("LogEntry", "stdout", "[b]two\x1b[31m"), ("LogEntry", "stderr", "three"),
    ]  # fmt: skip
    assert "\x1b" not in (await call("--json")).out


async def test_follow_ends_with_the_run(rf: Call, backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await say(backend, run_id, "a", "early")
    following = asyncio.create_task(asyncio.to_thread(rf, "logs", run_id, "--follow"))
    await complete(backend, run_id, "a")
    await say(backend, run_id, "b", "live")
    await complete(backend, run_id, "b")
    done = await asyncio.wait_for(following, 20)
    assert done.code == 0
    assert told(done.out) == ["a  early", "b  live"]


async def test_follow_has_lines_that_came_after_the_end(rf: Call, backend: RedisBackend) -> None:
    run_id = await submit(backend, PAIR)
    await complete(backend, run_id, "a", "b")
    await say(backend, run_id, "b", "late")
    done = await asyncio.wait_for(asyncio.to_thread(rf, "logs", run_id, "-f"), 20)
    assert told(done.out) == ["b  late"]


async def test_wrong_calls(rf: Call, backend: RedisBackend, settings: Settings) -> None:
    run_id = await submit(backend, PAIR)
    for arguments, code, message in [
        (("nosuch",), 1, "run 'nosuch' does not exist"),
        (("no such",), 2, "run_id='no such' is not allowed"),
        ((run_id, "c\x1b"), 2, "step 'c\\x1b' does not exist"),
        ((run_id, "--attempt", "0"), 2, "--attempt"),
    ]:
        done = await asyncio.to_thread(rf, "logs", *arguments)
        assert message in done.error
        assert done.code == code
    assert (await asyncio.to_thread(rf, "logs", run_id, "b")).out == ""
