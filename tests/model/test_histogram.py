"""Histograms: a percentile of the buckets is within the stated bound of the percentile of the durations."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redisflow.model.analytics.durations import percentile
from redisflow.model.histogram import RELATIVE_ERROR, Histogram, bucket_of, middle_of

DURATIONS = st.one_of(st.integers(0, 64), st.integers(0, 10**5), st.integers(0, 2**52))


@given(st.lists(DURATIONS, min_size=1), st.floats(0, 1))
def test_percentiles_are_within_the_bound(durations: list[int], q: float) -> None:
    histogram = Histogram()
    histogram.buckets.update(map(bucket_of, durations))
    exact = percentile(sorted(durations), q)
    assert abs(histogram.percentile(q) - exact) <= exact * RELATIVE_ERROR
    assert histogram.count == len(durations)


@given(DURATIONS, DURATIONS)
def test_buckets_keep_the_order(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert bucket_of(small) <= bucket_of(large)
    assert middle_of(bucket_of(small)) <= middle_of(bucket_of(large))


def test_short_durations_have_buckets_of_their_own() -> None:
    assert [round(middle_of(bucket_of(us))) for us in range(33)] == list(range(33))


def test_nothing_has_no_percentile() -> None:
    assert (Histogram().count, Histogram().percentile(0.99)) == (0, 0)
