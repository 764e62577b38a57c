"""Families of samples made of numbers that were counted elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Rows = Iterable[tuple[Sequence[str], float]]
"""Values of the labels, and the number."""


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


def gauges(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A gauge by labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels; `_total` is added to its name."""
    return CounterMetricFamily(name, text, value=value)


def counters(name: str, text: str, labels: Sequence[str], rows: Rows) -> Metric:
    """A counter by labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family


def histogram(name: str, text: str, counts: Mapping[float, int], total: float) -> Metric:
    """A histogram.

    Args:
        name: ends with its unit.
        text: what it is, in a line.
        counts: how many fell into each bucket, by its upper bound; the last one is infinite.
        total: sum of all values.
    """
    buckets, running = [], 0
    for bound in sorted(counts):
        running += counts[bound]
        buckets.append(("+Inf" if bound == float("inf") else f"{bound:.12g}", float(running)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
