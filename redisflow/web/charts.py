"""Small charts as numbers for an SVG: bars over time. Colours and texts are the template's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """One bar, in the chart's own units (see `Bars`), and what it stands for."""

    x: float
    y: float
    width: float
    height: float
    value: int
    start_us: int


@dataclass(frozen=True)
class Bars:
    """Bars from left to right, in a box of `width` by `height`; `top` is the greatest value."""

    bars: tuple[Bar, ...]
    width: int
    height: int
    top: int


def bars(values: Sequence[int], edges: Sequence[int], *, width: int = 600, height: int = 120) -> Bars:
    """Bars of values between neighbouring times (µs)."""
    top = max(values, default=0)
    step = width / max(1, len(values))
    made = []
    for index, value in enumerate(values):
        tall = max(2.0, height * value / top) if value else 0.0
        made.append(Bar(round(index * step + step * 0.1, 2), round(height - tall, 2), round(step * 0.8, 2), round(tall, 2), value,
                        edges[index]))  # fmt: skip
    return Bars(tuple(made), width, height, top)


def edges_of(start_us: int, end_us: int, count: int) -> list[int]:
    """`count` + 1 times that cut a window into equal parts; the last one takes the end in."""
    step = max(1, (end_us - start_us) // count)
    return [start_us + index * step for index in range(count)] + [end_us + 1]


def spread(times: Sequence[int], edges: Sequence[int]) -> list[int]:
    """How many of the times lie in each part."""
    counts = [0] * (len(edges) - 1)
    for at in times:
        if edges[0] <= at < edges[-1]:
            step = max(1, edges[1] - edges[0])
            counts[min((at - edges[0]) // step, len(counts) - 1)] += 1
    return counts
