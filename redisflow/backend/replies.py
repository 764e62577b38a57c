"""What a script did: one enum, the same as lua/lib/replies.lua (a test compares the two)."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from redisflow.model.errors import RedisflowError


class Reply(IntEnum):
    """Answer of a script to a call, apart from the state of a step (`StepStatus`)."""

    OK = 0
    ALREADY = 1
    STALE = 2
    CONFLICT = 3
    RUN_ENDED = 4
    GONE = 5
    REJECTED = 6
    OLD_TURN = 7
    NO_PLAN = 8
    EPOCH = 9
    TORN = 10
    DUPLICATE = 11
    EXISTS = 12
    NOT_DUE = 13
    NOT_ENDED = 14
    MORE = 15


def check_written(reply: list[Any], run_id: str) -> None:
    """Raise where a script could not write all that it was to.

    Raises:
        RedisflowError: what the server said.
    """
    if reply[0] == Reply.REJECTED:
        raise RedisflowError(f"run {run_id}: {reply[1].decode()}; what was written is whole, so try again")
