"""What users write: workflows, steps, tasks, resources, and what a step may raise.

A workflow is declared with decorators, checked as it is declared, and compiled to a plan
(`model/workflow.py`) when it is first used. Nothing here talks to a server or runs a step.
"""

from redisflow.define.binding import From
from redisflow.define.context import StepContext
from redisflow.define.control import Fatal, RetryAfter, Skip
from redisflow.define.declaration import StepKey
from redisflow.define.resources import Resource, Use, resource
from redisflow.define.retries import Retry, RetryOption
from redisflow.define.runner import InlineRunner, set_inline_runner
from redisflow.define.steps import Step
from redisflow.define.task import Task, task
from redisflow.define.workflow import Workflow

__all__ = [
    "Fatal",
    "From",
    "InlineRunner",
    "Resource",
    "Retry",
    "RetryAfter",
    "RetryOption",
    "Skip",
    "Step",
    "StepContext",
    "StepKey",
    "Task",
    "Use",
    "Workflow",
    "resource",
    "set_inline_runner",
    "task",
]
