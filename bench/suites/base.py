"""What a suite is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bench.peers import Peer


@dataclass(frozen=True)
class Setup:
    """How to measure: the server's program, and how many jobs."""

    server: str
    count: int


@dataclass(frozen=True)
class Goal:
    """What redisflow is to reach in a measure.

    Attributes:
        value: a ratio to `against` in the same run, or an absolute figure where that is "".
        side: whether more or less than that is good.
        against: name of a peer.
    """

    value: float
    side: Literal["least", "most"]
    against: str = "bullmq"


@dataclass(frozen=True)
class Suite:
    """A group of figures that are measured together.

    Attributes:
        name: as `--suite` takes it.
        title: for tables.
        count: jobs a repetition.
        units: measure to unit; a leading word of a measure may be made at run time, such as a size.
        measure: one repetition for one peer.
        takes: whether it can measure a peer.
        goals: by measure.
    """

    name: str
    title: str
    count: int
    units: Mapping[str, str]
    measure: Callable[[Peer, Setup], Mapping[str, float]]
    takes: Callable[[Peer], bool] = lambda peer: True
    goals: Mapping[str, Goal] = field(default_factory=dict)
