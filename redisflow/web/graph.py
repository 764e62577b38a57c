"""The DAG of a workflow drawn in layers, from left to right: where each step stands and how its edges run.

A step stands one layer to the right of the last that it waits for. Inside the layers steps are moved towards the middle of their
neighbours, sweep by sweep, which leaves few crossings in graphs of the size that people look at. Edges over several layers pass
through places of their own, so that they run around steps and not through them. Pure: names and edges in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

WIDTH, HEIGHT = 176, 46
GAP_X, GAP_Y = 56, 18
PASS_HEIGHT = 10
MARGIN = 12
SWEEPS = 6
MOST: Final = 300
"""Steps that are drawn; a larger graph is a list."""


@dataclass(frozen=True)
class Node:
    """A step and its box."""

    id: str
    x: float
    y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes, the paths of edges by (from, to), and the size of it all in pixels."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str, str], ...]
    width: float
    height: float


@dataclass
class _Cell:
    """A step, or a place (id None) that an edge passes on its way."""

    id: str | None
    layer: int
    y: float = 0
    left: list[_Cell] | None = None
    right: list[_Cell] | None = None

    @property
    def height(self) -> int:
        return HEIGHT if self.id is not None else PASS_HEIGHT


def draw(edges: Mapping[str, Sequence[str]]) -> Drawing | None:
    """Lay out steps, given with what each waits for, dependencies first; None for a graph that is too large or empty."""
    if not edges or len(edges) > MOST:
        return None
    layers: dict[str, int] = {}
    for step, needs in edges.items():
        layers[step] = 1 + max((layers[need] for need in needs if need in layers), default=-1)
    cells = {step: _Cell(step, layer, left=[], right=[]) for step, layer in layers.items()}
    columns: list[list[_Cell]] = [[] for _ in range(max(layers.values()) + 1)]
    for step, cell in cells.items():
        columns[layers[step]].append(cell)
    chains = [
        (need, step, _chain(cells[need], cells[step], columns))
        for step, needs in edges.items() for need in needs if need in cells and layers[need] < layers[step]
    ]  # fmt: skip
    for sweep in range(SWEEPS):
        _order(columns, rightwards=sweep % 2 == 0)
    height = _place(columns)
    nodes = tuple(Node(step, _x(cell.layer), MARGIN + cell.y) for step, cell in cells.items())
    paths = tuple((need, step, _path(chain)) for need, step, chain in chains)
    return Drawing(nodes, paths, _x(len(columns) - 1) + WIDTH + MARGIN, height + 2 * MARGIN)


def _x(layer: int) -> int:
    return MARGIN + layer * (WIDTH + GAP_X)


def _chain(start: _Cell, end: _Cell, columns: list[list[_Cell]]) -> list[_Cell]:
    """The cells that an edge passes, ends included; each is a neighbour of the next."""
    chain = [start]
    for layer in range(start.layer + 1, end.layer):
        cell = _Cell(None, layer, left=[], right=[])
        columns[layer].append(cell)
        chain.append(cell)
    chain.append(end)
    for one, other in pairwise(chain):
        assert one.right is not None
        assert other.left is not None
        one.right.append(other)
        other.left.append(one)
    return chain


def _order(columns: list[list[_Cell]], *, rightwards: bool) -> None:
    """Sort each column by the mean place of the neighbours in the column before it."""
    for column in columns if rightwards else reversed(columns):
        places = {id(cell): index for other in columns for index, cell in enumerate(other)}

        def middle(cell: _Cell, places: dict[int, int] = places) -> float:
            near = (cell.left if rightwards else cell.right) or []
            return sum(places[id(other)] for other in near) / len(near) if near else places[id(cell)]

        column.sort(key=middle)


def _place(columns: list[list[_Cell]]) -> float:
    """Give each cell its y: columns centred, then pulled towards neighbours as far as their order allows."""
    sizes = [sum(cell.height + GAP_Y for cell in column) - GAP_Y for column in columns]
    tallest = max(sizes)
    for column, size in zip(columns, sizes, strict=True):
        y = (tallest - size) / 2
        for cell in column:
            cell.y = y
            y += cell.height + GAP_Y
    for _ in range(SWEEPS):
        for column in columns:
            _pull(column)
    least = min(cell.y for column in columns for cell in column)
    for column in columns:
        for cell in column:
            cell.y -= least
    return max(cell.y + cell.height for column in columns for cell in column)


def _pull(column: list[_Cell]) -> None:
    wanted = []
    for cell in column:
        near = [*(cell.left or ()), *(cell.right or ())]
        centre = sum(other.y + other.height / 2 for other in near) / len(near) if near else cell.y + cell.height / 2
        wanted.append(centre - cell.height / 2)
    floor = -1e9
    for cell, y in zip(column, wanted, strict=True):
        cell.y = max(y, floor)
        floor = cell.y + cell.height + GAP_Y
    shift = sum(y - cell.y for cell, y in zip(column, wanted, strict=True)) / len(column)
    for cell in column:
        cell.y += shift


def _path(chain: list[_Cell]) -> str:
    """An SVG path of curves with level ends."""
    points = []
    for index, cell in enumerate(chain):
        y = MARGIN + cell.y + cell.height / 2
        if index:
            points.append((_x(cell.layer), y))
        if index < len(chain) - 1:
            points.append((_x(cell.layer) + WIDTH, y))
    first = points[0]
    path = f"M{first[0]:.1f} {first[1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        half = (x1 - x0) / 2
        path += f" C{x0 + half:.1f} {y0:.1f} {x1 - half:.1f} {y1:.1f} {x1:.1f} {y1:.1f}"
    return path
