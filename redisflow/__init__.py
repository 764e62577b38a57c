"""redisflow: durable workflows and a distributed work queue on Redis.

The public names, nothing else. The blocking twin of `Client` is `redisflow.sync.Client`.
"""

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

__all__ = [
    "Client",
    "DefinitionError",
    "Fatal",
    "From",
    "InvalidArgument",
    "InvalidInput",
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
