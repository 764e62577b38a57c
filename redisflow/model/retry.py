"""How often a step is tried again, and how long it waits in between.

A policy is a row of tiers: a few quick tries, then slower ones, for example. Attempts are spent tier by tier,
and a tier starts anew at its own base delay. Crashes of workers are counted apart from failures of the step,
so that a bad night of the machines uses up no attempt of the code.

Pure arithmetic: the scripts do the same sums in Lua, and tests hold one to the other. Randomness comes in as
an argument.
"""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class RetryTier(BaseModel):
    """Some attempts with one backoff.

    Attributes:
        attempts: attempts in this tier; the first tier's count the first try.
        delay_us: wait before the first repeat, in µs.
        factor: what the wait is multiplied by from one repeat to the next.
        max_delay_us: cap of the wait before it is spread, in µs.
        jitter: share of the wait by which it is spread up and down, 0 to 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    attempts: int = Field(1, ge=1, le=1_000_000)
    delay_us: int = Field(1_000_000, ge=0)
    factor: float = Field(2.0, ge=1)
    max_delay_us: int = Field(600_000_000, ge=0)
    jitter: float = Field(0.1, ge=0, le=1)


class RetryPolicy(BaseModel):
    """The whole policy of a step.

    Attributes:
        tiers: in the order in which they are used up; at least one.
        crashes: how many times a step is taken back from a dead worker and run again before it fails.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: tuple[RetryTier, ...] = Field((RetryTier(),), min_length=1)
    crashes: int = Field(3, ge=0)

    @property
    def max_attempts(self) -> int:
        """Attempts of all tiers together, the first try included."""
        return sum(tier.attempts for tier in self.tiers)

    def tier_of(self, failures: int) -> tuple[int, int]:
        """Where the attempt that follows `failures` failures stands.

        Returns:
            The index of its tier from 0, and its number in that tier from 1; past the budget, it goes on in
            the last tier.
        """
        attempt = failures + 1
        last = len(self.tiers) - 1
        for index, tier in enumerate(self.tiers):
            if attempt <= tier.attempts or index == last:
                return index, attempt
            attempt -= tier.attempts
        raise AssertionError("a policy has at least one tier")

    def delay_us(self, failures: int, jitter_draw: float) -> int:
        """The wait, in µs, before the attempt that follows `failures` failures; `jitter_draw` is in [0, 1)."""
        index, attempt = self.tier_of(failures)
        return retry_delay_us(self.tiers[index], attempt - 1, jitter_draw)


def retry_delay_us(tier: RetryTier, failures_in_tier: int, jitter_draw: float) -> int:
    """How long to wait before the next attempt of a tier.

    Args:
        tier: the tier of the attempt that waits.
        failures_in_tier: failed attempts of this tier so far; 0 where the tier is entered, which waits as
            after 1.
        jitter_draw: a random number in [0, 1); 0.5 gives the middle.

    Returns:
        Microseconds, 0 or more.
    """
    try:
        delay = tier.delay_us * tier.factor ** max(0, failures_in_tier - 1)
    except OverflowError:
        delay = math.inf if tier.delay_us else 0.0
    delay = min(delay, tier.max_delay_us) * (1 + tier.jitter * (2 * jitter_draw - 1))
    return max(0, math.floor(delay))
