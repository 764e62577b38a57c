"""What a raised exception becomes: a described error that fits into an event."""

from __future__ import annotations

from redisflow.define import Fatal, RetryAfter
from redisflow.model.errors import PayloadTooLarge
from redisflow.model.events import StepError
from redisflow.model.fingerprints import describe_exception

MAX_STACK = 32_768  # characters


class StepTimeout(TimeoutError):
    """A step's body ran past its timeout."""


class ChildFailed(Exception):
    """A step failed in a process of its own.

    Args:
        described: what was raised there, or how the process ended.
        fatal: whether no retry may follow.
        retry_after_us: µs until the next attempt; None for what the policy says.
    """

    def __init__(self, described: StepError, *, fatal: bool = False, retry_after_us: int | None = None) -> None:
        self.described = described
        self.fatal = fatal
        self.retry_after_us = retry_after_us
        super().__init__(described.message)


def describe(error: BaseException) -> StepError:
    """Name, message and stack of an exception, cut to what an event may hold; never raises."""
    if isinstance(error, ChildFailed):
        return error.described
    try:
        described = describe_exception(error)
    except Exception as trouble:  # noqa: BLE001 - an error whose description raises is still an error
        return StepError(
            name=type(error).__name__, message=f"(the error could not be described: {type(trouble).__name__})"
        )
    if described.stack and len(described.stack) > MAX_STACK:
        half = MAX_STACK // 2
        cut = f"{described.stack[:half]}\n… cut …\n{described.stack[-half:]}"
        described = described.model_copy(update={"stack": cut})
    return described.model_copy(update={"message": described.message[:MAX_STACK]})


def is_fatal(error: BaseException) -> bool:
    """Whether no attempt may follow, whatever the policy."""
    return error.fatal if isinstance(error, ChildFailed) else isinstance(error, (Fatal, PayloadTooLarge))


def retry_after(error: BaseException) -> int | None:
    """µs that the error itself asks for until the next attempt; None where it does not."""
    if isinstance(error, ChildFailed):
        return error.retry_after_us
    return error.delay_us if isinstance(error, RetryAfter) else None
