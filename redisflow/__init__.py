"""redisflow: durable workflows and a distributed work queue on Redis.

The public names, nothing else. The blocking twin of `Client` is `redisflow.sync.Client`. Names are imported when they are first
used, so that a command line which only prints help does not load a Redis client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redisflow.client import Client, Run, Submission
    from redisflow.define import (
        Fatal,
        From,
        Resource,
        Retry,
        RetryAfter,
        Skip,
        StepContext,
        Task,
        Use,
        Workflow,
        resource,
        task,
    )
    from redisflow.inline import run_inline
    from redisflow.model.errors import (
        DefinitionError,
        InvalidArgument,
        InvalidInput,
        NotReplicated,
        PayloadTooLarge,
        RedisflowError,
        ResultTimeout,
        RunCancelled,
        RunExists,
        RunFailed,
        RunNotFound,
        ServerUnavailable,
        UsageError,
        WorkflowNotFound,
    )
    from redisflow.reclaimer import Reclaimer
    from redisflow.settings import Settings
    from redisflow.worker import Worker

__version__ = "0.1.0"

_DEFINE = (
    "Fatal", "From", "Resource", "Retry", "RetryAfter", "Skip", "StepContext", "Task", "Use", "Workflow", "resource", "task",
)  # fmt: skip
_ERRORS = (
    "DefinitionError", "InvalidArgument", "InvalidInput", "NotReplicated", "PayloadTooLarge", "RedisflowError",
    "ResultTimeout", "RunCancelled", "RunExists", "RunFailed", "RunNotFound", "ServerUnavailable", "UsageError", "WorkflowNotFound",
)  # fmt: skip
_HOMES = {
    **dict.fromkeys(("Client", "Run", "Submission"), "redisflow.client"),
    **dict.fromkeys(_DEFINE, "redisflow.define"),
    **dict.fromkeys(_ERRORS, "redisflow.model.errors"),
    "Reclaimer": "redisflow.reclaimer",
    "Settings": "redisflow.settings",
    "Worker": "redisflow.worker",
    "run_inline": "redisflow.inline",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'redisflow' has no attribute {name!r}")
    if home == "redisflow.define":
        import_module("redisflow.inline")  # gives Workflow.run_inline its runner
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]


__all__ = [
    "Client",
    "DefinitionError",
    "Fatal",
    "From",
    "InvalidArgument",
    "InvalidInput",
    "NotReplicated",
    "PayloadTooLarge",
    "Reclaimer",
    "RedisflowError",
    "Resource",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunNotFound",
    "ServerUnavailable",
    "Settings",
    "Skip",
    "StepContext",
    "Submission",
    "Task",
    "UsageError",
    "Use",
    "Worker",
    "Workflow",
    "WorkflowNotFound",
    "resource",
    "run_inline",
    "task",
]
