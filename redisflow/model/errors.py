"""Every error that redisflow raises on purpose.

One root, `RedisflowError`, so that a caller can catch all of them. A message is one line that names what is wrong and how to
mend it; the CLI prints it as it stands. Errors that say "you called this wrongly" derive from `UsageError` (exit code 2),
all others are failures (exit code 1).
"""

from __future__ import annotations

from collections.abc import Sequence


class RedisflowError(Exception):
    """Root of all errors of redisflow."""


class UsageError(RedisflowError):
    """A wrong argument; nothing was written."""


class InvalidArgument(UsageError):
    """An argument outside what is allowed.

    Args:
        argument: its name.
        value: what was given.
        allowed: what would have been right, in words.
    """

    def __init__(self, argument: str, value: object, allowed: str) -> None:
        self.argument = argument
        self.value = value
        self.allowed = allowed
        shown = repr(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{argument}={shown} is not allowed: {allowed}")


class InvalidInput(UsageError):
    """A value that does not fit its schema.

    Args:
        what: which value, in words, such as `input of workflow 'checkout'`.
        problems: (field path, message) of each problem; the path is dotted, `$` for the whole.
    """

    def __init__(self, what: str, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        listed = "; ".join(f"{path}: {message}" for path, message in self.problems[:10])
        more = f" (and {len(self.problems) - 10} more)" if len(self.problems) > 10 else ""
        super().__init__(f"{what} is invalid: {listed}{more}")


class DefinitionError(UsageError):
    """A workflow or step that is declared wrongly; the message names the step and the fix."""


class PayloadTooLarge(UsageError):
    """A payload over the cap.

    Args:
        what: which payload, in words.
        size: its size in bytes.
        limit: the cap in bytes.
    """

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"{what} is {size:,} bytes, over the limit of {limit:,}: pass a reference (a path, a key, a URL) instead, "
            "or raise REDISFLOW_MAX_PAYLOAD_BYTES on clients and workers"
        )


class RunNotFound(RedisflowError):
    """There is no run of this id (it never was, or its retention has ended)."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} does not exist: it was never submitted here, or its retention has ended")


class WorkflowNotFound(UsageError):
    """No workflow is registered under this slug."""

    def __init__(self, slug: str, known: Sequence[str] = ()) -> None:
        self.slug = slug
        listed = f"; known: {', '.join(sorted(known)[:10])}" if known else "; none is registered"
        super().__init__(
            f"workflow {slug!r} is not registered{listed}. Start a worker that loads it, or pass the Workflow"
        )


class StepNotFound(UsageError):
    """The run or workflow has no such step."""

    def __init__(self, step_id: str, where: str) -> None:
        self.step_id = step_id
        super().__init__(f"step {step_id!r} does not exist in {where}")


class RunExists(UsageError):
    """The run id is in use."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run id {run_id!r} is in use: choose another, or leave it out to have one made")


class RunFailed(RedisflowError):
    """The run ended as failed.

    Attributes:
        run_id: the run.
        step_id: the step that failed first, None for a timeout of the run.
        error_name: class name of the error.
        error_message: its message.
        stack: its traceback, if one was recorded.
    """

    def __init__(
        self, run_id: str, step_id: str | None, error_name: str | None, error_message: str, stack: str | None = None
    ) -> None:
        self.run_id = run_id
        self.step_id = step_id
        self.error_name = error_name
        self.error_message = error_message
        self.stack = stack
        where = f" in step {step_id!r}" if step_id else ""
        what = f"{error_name}: {error_message}" if error_name else error_message
        super().__init__(f"run {run_id} failed{where}: {what}")


class RunCancelled(RedisflowError):
    """The run was cancelled."""

    def __init__(self, run_id: str, reason: str | None = None) -> None:
        self.run_id = run_id
        self.reason = reason
        super().__init__(f"run {run_id} was cancelled" + (f": {reason}" if reason else ""))


class ResultTimeout(RedisflowError, TimeoutError):
    """The run had not ended when the wait for its result did; the run itself goes on."""


class ServerUnavailable(RedisflowError):
    """The server could not be reached, or did not become usable, within the deadline."""


class NotReplicated(RedisflowError):
    """A submission was acknowledged by the primary, but no replica has confirmed it.

    Attributes:
        run_ids: the runs.
        stored: they are on the primary and go on; False where a failover has lost them.
    """

    def __init__(self, run_ids: Sequence[str], *, stored: bool) -> None:
        self.run_ids = tuple(run_ids)
        self.stored = stored
        more = f" and {len(run_ids) - 1} more" if len(run_ids) > 1 else ""
        said = (
            "is stored and goes on, but no replica confirmed it in time: a failover now could lose it. Check the replica, and "
            "submit again with the same key to ask again"
            if stored
            else "was lost by a failover: submit it again"
        )
        super().__init__(f"run {run_ids[0]}{more} {said}")


class ServerUnsuitable(RedisflowError):
    """The server is too old, evicts keys, or holds another schema."""


class NamespaceLost(RedisflowError):
    """The namespace's epoch is gone or changed: the server was flushed or replaced. Workers stop."""


class PartitionTorn(RedisflowError):
    """Keys of a partition are missing (a failover in the middle of a slot migration); nothing was written."""


class TransitionRefused(RedisflowError):
    """A transition that the run's state does not allow; nothing was written."""
