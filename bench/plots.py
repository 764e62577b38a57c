"""Plots of results, as PNG and SVG: redisflow in colour, the others in grey, the spread of the repetitions as whiskers."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator

from bench.results import Results, figure

OWN, OTHER, SECOND = "#c6302b", "#a9b0ba", "#5b6573"
NAMES = {"bullmq": "BullMQ (Node)", "bullmq-python": "BullMQ (Python)", "celery": "Celery"}
STYLE = {
    "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "ytick.left": False,
    "svg.hashsalt": "redisflow", "svg.fonttype": "none", "axes.axisbelow": True, "axes.titlelocation": "left",
    "axes.titleweight": "bold", "figure.facecolor": "white",
}  # fmt: skip


def name_of(peer: str) -> str:
    """A peer's name for people."""
    return NAMES.get(peer, peer)


def bars(results: Results, measure: str, title: str, unit: str, folder: Path, stem: str) -> None:
    """Horizontal bars of one measure, best first."""
    by_peer = results.values[measure]
    peers = sorted(by_peer, key=lambda peer: statistics.median(by_peer[peer]))
    medians = [statistics.median(by_peer[peer]) for peer in peers]
    spread = [
        [middle - min(by_peer[peer]) for peer, middle in zip(peers, medians, strict=True)],
        [max(by_peer[peer]) - middle for peer, middle in zip(peers, medians, strict=True)],
    ]
    with plt.rc_context(STYLE):
        chart, axes = plt.subplots(figsize=(7.6, 0.9 + 0.34 * len(peers)), layout="constrained")
        axes.barh(
            [name_of(peer) for peer in peers], medians, xerr=spread, height=0.68, ecolor=SECOND, capsize=2,
            error_kw={"linewidth": 0.8}, color=[OWN if peer == "redisflow" else OTHER for peer in peers],
        )  # fmt: skip
        for row, (peer, middle) in enumerate(zip(peers, medians, strict=True)):
            axes.annotate(
                figure(middle), (max(by_peer[peer]), row), xytext=(5, 0), textcoords="offset points", va="center"
            )
        axes.set_title(title)
        axes.set_xlabel(f"{unit}, median with least and greatest")
        axes.set_xlim(0, max(max(values) for values in by_peer.values()) * 1.14)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        _save(chart, folder, stem)


def spans(results: Results, title: str, folder: Path, stem: str) -> None:
    """Median and 99th percentile of each peer on a line, fastest on top, on a logarithmic axis."""
    low, high = results.values["p50"], results.values["p99"]
    peers = sorted(low, key=lambda peer: -statistics.median(low[peer]))
    with plt.rc_context(STYLE):
        chart, axes = plt.subplots(figsize=(7.6, 0.9 + 0.34 * len(peers)), layout="constrained")
        for row, peer in enumerate(peers):
            colour = OWN if peer == "redisflow" else SECOND
            first, last = statistics.median(low[peer]), statistics.median(high[peer])
            axes.plot([first, last], [row, row], color=colour, linewidth=2, alpha=0.45, zorder=1)
            axes.scatter([first], [row], color=colour, s=36, zorder=2)
            axes.scatter([last], [row], color="white", edgecolor=colour, s=36, zorder=2)
            axes.annotate(
                f"{figure(first)} / {figure(last)}", (last, row), xytext=(8, 0), textcoords="offset points", va="center",
                fontsize=9,
            )  # fmt: skip
        axes.set_yticks(range(len(peers)), [name_of(peer) for peer in peers])
        axes.set_ylim(-0.7, len(peers) - 0.3)
        axes.set_xscale("log")
        right = max(statistics.median(values) for values in high.values())
        left = min(statistics.median(values) for values in low.values())
        axes.set_xlim(left / 1.3, right * (right / left) ** 0.22)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.minorticks_off()
        axes.set_title(title)
        axes.set_xlabel("ms, logarithmic; full dot: median, open dot: 99th percentile")
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        _save(chart, folder, stem)


def growth(results: Results, title: str, folder: Path, stem: str) -> None:
    """The drain rate over the length of the queue."""
    points = {
        int(measure.removeprefix("drain of ").replace(",", "")): values["redisflow"]
        for measure, values in results.values.items() if measure.startswith("drain of ") and "CPU" not in measure
    }  # fmt: skip
    sizes = sorted(points)
    with plt.rc_context(STYLE | {"axes.spines.left": True, "ytick.left": True}):
        chart, axes = plt.subplots(figsize=(7.6, 3), layout="constrained")
        axes.fill_between(
            sizes, [min(points[s]) for s in sizes], [max(points[s]) for s in sizes], color=OWN, alpha=0.15, lw=0
        )
        axes.plot(sizes, [statistics.median(points[size]) for size in sizes], color=OWN, marker="o", linewidth=2)
        axes.set_xscale("log")
        axes.set_ylim(0, max(max(values) for values in points.values()) * 1.15)
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.xaxis.minorticks_off()
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_title(title)
        axes.set_xlabel("runs queued")
        axes.set_ylabel("runs/s")
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        _save(chart, folder, stem)


def _save(chart: Any, folder: Path, stem: str) -> None:
    chart.savefig(folder / f"{stem}.svg", metadata={"Date": None, "Creator": None})
    chart.savefig(folder / f"{stem}.png", dpi=110, metadata={"Software": None})
    plt.close(chart)
