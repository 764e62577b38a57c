"""`Retry` as users write it, with durations in words, and its way to the policy of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from redisflow.model.errors import DefinitionError, InvalidArgument
from redisflow.model.retry import RetryPolicy, RetryTier
from redisflow.settings import Duration, parse_duration


@dataclass(frozen=True, slots=True)
class Retry:
    """How a failed step is tried again.

    Attributes:
        attempts: how often it is tried, the first try included.
        delay: wait before the first repeat.
        factor: what the wait is multiplied by from one repeat to the next, 1 or more.
        max_delay: cap of the wait.
        jitter: share by which the wait is spread up and down, 0 to 1.
        crashes: how often a step whose worker died is run again; counted apart from `attempts`. Of several
            `Retry`s in a row, that of the first holds.

    Raises:
        InvalidArgument: a value outside what is allowed.
    """

    attempts: int = 1
    delay: Duration = "1s"
    factor: float = 2.0
    max_delay: Duration = "10m"
    jitter: float = 0.1
    crashes: int = 3
    tier: RetryTier = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.crashes, bool) or not isinstance(self.crashes, int) or self.crashes < 0:
            raise InvalidArgument("crashes", self.crashes, "a whole number, 0 or more")
        values = {"attempts": self.attempts, "factor": self.factor, "jitter": self.jitter}
        for name, value in (("delay", self.delay), ("max_delay", self.max_delay)):
            try:
                values[f"{name}_us"] = parse_duration(value)
            except (ValueError, AttributeError) as error:
                raise InvalidArgument(name, value, str(error)) from error
        try:
            tier = RetryTier.model_validate(values)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise InvalidArgument(str(wrong["loc"][0]), wrong["input"], wrong["msg"]) from error
        object.__setattr__(self, "tier", tier)


RetryOption = Retry | Sequence[Retry] | int | None
"""What `retry=` takes: a `Retry`, several that are used up one after the other, or a number of attempts."""


def compile_policy(option: RetryOption, where: str) -> RetryPolicy:
    """Turn what a user wrote into the policy of the plan; `where` names the step in errors.

    Raises:
        DefinitionError: it is none of what `retry=` takes.
    """
    if option is None:
        option = Retry()
    elif isinstance(option, int) and not isinstance(option, bool):
        try:
            option = Retry(attempts=option)
        except InvalidArgument as error:
            raise DefinitionError(f"{where}: retry={option}: pass 1 or more, the first try counts") from error
    tiers = (option,) if isinstance(option, Retry) else option
    if isinstance(tiers, Sequence) and tiers and all(isinstance(tier, Retry) for tier in tiers):
        return RetryPolicy(tiers=tuple(tier.tier for tier in tiers), crashes=tiers[0].crashes)
    raise DefinitionError(
        f"{where}: retry={option!r} is not a retry policy: pass Retry(attempts=5), a list of them, or a "
        "number of attempts"
    )
