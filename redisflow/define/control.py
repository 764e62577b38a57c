"""What a step raises to say how it ended, other than by returning or by failing.

They are no errors of redisflow, hence outside its hierarchy: user code that catches `RedisflowError` must not
swallow them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redisflow.model.errors import InvalidArgument
from redisflow.settings import Duration, parse_duration


class Skip(Exception):
    """The step has nothing to do; steps that need its output are skipped too.

    Args:
        reason: why, for people.
        metadata: more of it, as anything with a JSON form.
    """

    def __init__(self, reason: str, metadata: Mapping[str, Any] | None = None) -> None:
        self.reason = reason
        self.metadata = None if metadata is None else dict(metadata)
        super().__init__(reason, self.metadata)  # what it is made of, so that it can be pickled

    def __str__(self) -> str:
        return self.reason


class Fatal(Exception):
    """The step fails for good, whatever attempts are left."""

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class RetryAfter(Exception):
    """This attempt failed; the next one, if any is left, waits as long as is said here instead of the
    policy's delay.

    Args:
        delay: how long to wait.
        message: why.

    Raises:
        InvalidArgument: `delay` is no duration.
    """

    def __init__(self, delay: Duration, message: str = "") -> None:
        try:
            self.delay_us = parse_duration(delay)
        except ValueError as error:
            raise InvalidArgument("delay", delay, str(error)) from error
        self.message = message or f"retry after {delay}"
        super().__init__(delay, message)  # what it is made of, so that it can be pickled

    def __str__(self) -> str:
        return self.message
