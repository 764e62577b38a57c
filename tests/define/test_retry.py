"""Tiers, delays, and what `retry=` takes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from redisflow.define import Retry, Workflow
from redisflow.model.errors import DefinitionError, InvalidArgument
from redisflow.model.retry import RetryPolicy, RetryTier, retry_delay_us

FLAT = RetryTier(attempts=3, delay_us=1_000, factor=2, max_delay_us=3_000, jitter=0)


@pytest.mark.parametrize(("failures", "delay"), [(0, 1_000), (1, 1_000), (2, 2_000), (3, 3_000), (5_000, 3_000)])
def test_a_delay_grows_by_the_factor_up_to_its_cap(failures: int, delay: int) -> None:
    assert retry_delay_us(FLAT, failures, 0.5) == delay


@pytest.mark.parametrize(("draw", "delay"), [(0.0, 500), (0.5, 1_000), (1.0, 1_500)])
def test_jitter_spreads_up_and_down(draw: float, delay: int) -> None:
    assert retry_delay_us(FLAT.model_copy(update={"jitter": 0.5}), 1, draw) == delay


def test_no_delay_stays_none_however_often() -> None:
    assert retry_delay_us(RetryTier(delay_us=0, factor=1e300), 1_000, 0.9) == 0


@given(
    tier=st.builds(
        RetryTier,
        attempts=st.integers(1, 10),
        delay_us=st.integers(0, 10**12),
        factor=st.floats(1, 1e6),
        max_delay_us=st.integers(0, 10**12),
        jitter=st.floats(0, 1),
    ),
    failures=st.integers(0, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_delay_is_within_its_cap_and_spread(tier: RetryTier, failures: int, draw: float) -> None:
    delay = retry_delay_us(tier, failures, draw)
    assert 0 <= delay <= tier.max_delay_us * (1 + tier.jitter) + 1


def test_attempts_are_spent_tier_by_tier() -> None:
    policy = RetryPolicy(tiers=(RetryTier(attempts=2), RetryTier(attempts=1), RetryTier(attempts=2)))
    assert policy.max_attempts == 5
    assert [policy.tier_of(n) for n in range(6)] == [(0, 1), (0, 2), (1, 1), (2, 1), (2, 2), (2, 3)]


def test_a_tier_starts_anew_at_its_base_delay() -> None:
    slow = RetryTier(attempts=2, delay_us=60_000, factor=10, max_delay_us=10**9, jitter=0)
    policy = RetryPolicy(tiers=(FLAT, slow))
    assert [policy.delay_us(n, 0.5) for n in range(1, 5)] == [1_000, 2_000, 60_000, 60_000]


def test_a_policy_has_a_tier() -> None:
    with pytest.raises(ValidationError):
        RetryPolicy(tiers=())


def test_retry_reads_durations() -> None:
    tier = Retry(attempts=5, delay="250ms", max_delay=timedelta(minutes=1)).tier
    assert (tier.attempts, tier.delay_us, tier.max_delay_us) == (5, 250_000, 60_000_000)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"attempts": 0}, "attempts=0"),
        ({"delay": "soon"}, "delay='soon'"),
        ({"max_delay": "-"}, "max_delay='-'"),
        ({"factor": 0.5}, "factor=0.5"),
        ({"jitter": 2}, "jitter=2"),
        ({"crashes": -1}, "crashes=-1"),
        ({"delay": None}, "delay=None"),
    ],
)
def test_retry_names_what_is_wrong(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Retry(**wrong)  # type: ignore[arg-type]
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("option", "attempts", "crashes"),
    [
        (None, [1], 3),
        (4, [4], 3),
        (Retry(attempts=2, crashes=7), [2], 7),
        ([Retry(attempts=2, crashes=1), Retry(attempts=3)], [2, 3], 1),
    ],
)
def test_what_a_step_takes_as_retry(option: object, attempts: list[int], crashes: int) -> None:
    flow = Workflow("flow")

    @flow.step(retry=option)  # type: ignore[call-overload, untyped-decorator]
    def work() -> None: ...

    policy = flow.steps["work"].retry
    assert [tier.attempts for tier in policy.tiers] == attempts
    assert policy.crashes == crashes


@pytest.mark.parametrize("option", ["5", 0, True, [], [3], object()])
def test_what_it_does_not_take(option: object) -> None:
    flow = Workflow("flow")
    with pytest.raises(DefinitionError, match=r"step 'work' of workflow 'flow': retry=.*(pass)"):

        @flow.step(retry=option)  # type: ignore[call-overload, untyped-decorator]
        def work() -> None: ...
