"""What is ridden out and what is not: faults of Redis judged, told in one line, waited for with growing pauses."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from traceback import walk_tb
from typing import TypeVar

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    ConnectionError,
    MaxConnectionsError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    SlotNotCoveredError,
    TimeoutError,
    TryAgainError,
)

from redisflow.backend.location import redact
from redisflow.model.errors import RedisflowError, ServerUnavailable

T = TypeVar("T")
_PASSING = (
    ConnectionError, TimeoutError, BusyLoadingError, ClusterDownError, TryAgainError, SlotNotCoveredError, ClusterError,
    MaxConnectionsError, ReadOnlyError, RedisClusterException, OSError,
)  # fmt: skip
_PASSING_WORDS = (
    "BUSY",
    "LOADING",
    "READONLY",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "MOVED",
    "ASK",
    "UNKILLABLE",
    "NOREPLICAS",
    "Function not found",  # flushed between its loading and the call
)
_LASTING_WORDS = ("NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "invalid password")


_IN_PIPELINE = re.compile(r"^Command # \d+ \(.*?\) of pipeline caused error: \W*")


def said(error: BaseException) -> str:
    """What Redis said, with the code that the client library takes off."""
    text = _IN_PIPELINE.sub("", " ".join(str(error).split())) or type(error).__name__
    code = getattr(error, "status_code", None)
    return f"{code} {text}" if code and not text.startswith(code) else text


def is_passing(error: BaseException) -> bool:
    """Whether a later repeat of the call may succeed."""
    text = said(error)
    if any(word in text for word in _LASTING_WORDS):
        return False
    if isinstance(error, ResponseError) and not isinstance(error, (ReadOnlyError, BusyLoadingError)):
        return text.removeprefix("ERR ").startswith(_PASSING_WORDS)
    return isinstance(error, _PASSING)


def explain(error: BaseException, url: str) -> RedisflowError:
    """One line for a person: what Redis said, and what to do."""
    text, where = said(error), redact(url)
    if "OOM" in text:
        return ServerUnavailable(
            f"{where} is out of memory ({text}): raise maxmemory, or shorten REDISFLOW_RETENTION; nothing was written"
        )
    if "MISCONF" in text:
        return ServerUnavailable(f"{where} cannot persist to disk ({text}): free disk space; nothing was written")
    if "NOREPLICAS" in text:
        return ServerUnavailable(
            f"{where} has fewer replicas than min-replicas-to-write asks for ({text}): start the replica; nothing was written"
        )
    if "READONLY" in text:
        return ServerUnavailable(f"{where} is a read-only replica: point the URL at the primary; nothing was written")
    if any(word in text for word in _LASTING_WORDS):
        return ServerUnavailable(f"{where} refused the login or a command: {text}. Check user, password and ACL")
    return ServerUnavailable(
        f"cannot use Redis at {where}: {text}. Check that the server runs and the URL (--url or REDISFLOW_URL) is right"
    )


class Backoff:
    """Growing pauses up to a deadline: 20 ms doubling to 1 s, each spread by half."""

    def __init__(self, deadline_us: int) -> None:
        self.until = time.monotonic() + deadline_us / 1e6
        self.pause = 0.02

    @property
    def over(self) -> bool:
        """The deadline has passed."""
        return time.monotonic() >= self.until

    def next(self) -> float:
        """Seconds to wait before the next try."""
        pause = self.pause * random.uniform(0.5, 1.5)
        self.pause = min(self.pause * 2, 1.0)
        return pause


async def heeding_cancel(call: Callable[[], Awaitable[T]]) -> T:
    """Await a call of the client; a cancellation is raised even where the client would lose it.

    The client sends within `asyncio.wait_for`, and that of Python 3.11 forgets a cancellation that comes as the sending ends.

    Raises:
        ConnectionError: also for a connection that was closed while the call was about to write to it, which the client
            library and asyncio tell by errors of their own; see `_closed_in_between`.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    if before:
        await asyncio.sleep(0)  # one that Ctrl-C asked for in the middle of other code is raised here
    try:
        return await call()
    except (AttributeError, TypeError) as error:
        if _closed_in_between(error):
            raise ConnectionError("the connection was closed") from error
        raise
    finally:
        if task.cancelling() > before:
            raise asyncio.CancelledError


def _closed_in_between(error: AttributeError | TypeError) -> bool:
    """Whether a write met a connection that another task had closed.

    It has no stream any more (the client library), no protocol (asyncio with TLS) or no writer (asyncio of Python 3.12 and
    3.13, whose `writelines` does not look whether the transport is closed).
    """
    if isinstance(error, AttributeError):
        return error.obj is None and error.name in ("writelines", "_write_appdata")
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_code.co_name == "writelines" and str(frame.f_globals.get("__name__")).startswith("asyncio.")
