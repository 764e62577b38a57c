"""What a script did: one enum, the same as lua/lib/replies.lua (a test compares the two)."""

from __future__ import annotations

from enum import IntEnum


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
