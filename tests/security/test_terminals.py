"""Hostile text everywhere a run can hold it: no command lets any of it act on a terminal, and logs stay one line a message."""

from __future__ import annotations

import logging
import re

import pytest

from redisflow import Client, Settings, Worker, Workflow
from redisflow.worker.capture import StepFilter, TextFormatter
from tests.cli.conftest import Call, env, rf, unloaded  # noqa: F401 - fixtures

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\u2066\r\n\x00\x7fAll is well"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")

hostile = Workflow("hostile", input=str, output=str)


@hostile.step
async def noisy(input: str) -> str:
    print(input)
    logging.getLogger(input).warning(input)
    return input


@hostile.step(export=True)
async def breaks(noisy: str) -> str:
    raise type(noisy.replace("\0", ""), (Exception,), {})(noisy)


@pytest.fixture
async def run_id(settings: Settings) -> str:
    async with Client(settings=settings) as client, Worker(client, [hostile]):
        run = await client.submit(hostile, EVIL, key=EVIL, metadata={EVIL: EVIL})
        with pytest.raises(Exception, match="well"):
            await run.result(timeout=10)
        return run.id


COMMANDS = [
    ["runs"], ["show", "RUN"], ["events", "RUN"], ["events", "RUN", "--json"], ["logs", "RUN"], ["errors"], ["stats"],
    ["workflows"], ["queues"], ["doctor"], ["verify"], ["export"], ["runs", "--json"], ["show", "RUN", "--json"],
    ["logs", "RUN", "--json"], ["errors", "--json"],
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
async def test_no_command_passes_control_characters_on(rf: Call, run_id: str, words: list[str]) -> None:  # noqa: F811
    import asyncio

    done = await asyncio.to_thread(rf, *(run_id if word == "RUN" else word for word in words))
    assert not CONTROL.search(done.out), ascii(done.out)
    assert not CONTROL.search(done.err), ascii(done.err)
    assert "All is well" not in done.out.splitlines()  # nothing of it stands in a line of its own


@pytest.mark.parametrize(
    "words", [["show", EVIL], ["submit", EVIL], ["submit", "hostile", EVIL], ["cancel", EVIL], [EVIL]]
)
def test_errors_show_what_was_typed_harmlessly(rf: Call, words: list[str]) -> None:  # noqa: F811
    done = rf(*[word.replace("\x00", "") for word in words])
    assert done.code != 0
    assert not CONTROL.search(done.err), ascii(done.err)
    assert len(done.err.strip().splitlines()) == 1


def test_a_log_line_is_one_line_and_harmless() -> None:
    formatter, record_filter = TextFormatter(), StepFilter()
    try:
        raise ValueError(EVIL)
    except ValueError:
        import sys

        record = logging.LogRecord("x", logging.INFO, "f", 1, "step failed: %s", (EVIL,), sys.exc_info())
    record_filter.filter(record)
    first, *trace = formatter.format(record).split("\n")
    assert first.endswith("\\x0d\\x0a\\x00\\x7fAll is well")
    assert trace[0].startswith("Traceback")
    assert not CONTROL.search("\n".join([first, *trace]))
