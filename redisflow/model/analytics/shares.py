"""Means and percentages in which nothing of nothing is 0."""

from __future__ import annotations


def mean(total: int, count: int) -> float:
    """The mean; 0 of none."""
    return total / count if count else 0.0


def percent(part: int, whole: int) -> float:
    """The part in percent of the whole, divided first; 0 of none."""
    return part / whole * 100 if whole else 0.0
