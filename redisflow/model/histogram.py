"""Histograms of durations in a handful of numbers: 16 buckets an octave, whatever the range.

A duration of `f · 2^e` µs, with `f` from 0.5 to 1 as `frexp` gives it, stands in bucket `16·e + floor(32·f) - 16`; nothing in
bucket -16. A bucket is at most 1/16 as wide as its least value, and stands for its middle: so a percentile read from the buckets is
within 1/32 (3.2 %) of the same percentile of the durations themselves, since both lie in one bucket. `lua/lib/rollup.lua` holds the
twin of `bucket_of`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import frexp, ldexp

RELATIVE_ERROR = 1 / 32
"""Bound of `Histogram.percentile`, as a share of the true value."""


def bucket_of(us: int) -> int:
    """The bucket of a duration in µs, 0 or more."""
    fraction, exponent = frexp(us)
    return 16 * exponent + int(32 * fraction) - 16


def middle_of(bucket: int) -> float:
    """The middle of the whole µs that a bucket holds."""
    exponent, part = divmod(bucket, 16)
    if bucket == -16:
        return 0.0
    least = ldexp((16 + part) / 32, exponent)
    width = ldexp(1 / 32, exponent)
    return least + max(0.0, width - 1) / 2


@dataclass
class Histogram:
    """How many durations fell into each bucket."""

    buckets: Counter[int] = field(default_factory=Counter)

    @property
    def count(self) -> int:
        """Durations in all."""
        return self.buckets.total()

    def percentile(self, q: float) -> int:
        """The duration (µs) at floor(count·q) of all by size, the last where that runs over, within 1/32; 0 of nothing.

        Args:
            q: 0 to 1, such as 0.99.
        """
        total = self.count
        rank = min(int(total * q), total - 1)
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank < 0:
                return round(middle_of(bucket))
        return 0

    def to_json(self) -> dict[str, int]:
        """Count and the usual percentiles, µs."""
        return {"count": self.count, **{f"p{q}": self.percentile(q / 100) for q in (50, 95, 99)}}
