"""The hook through which `Workflow.run_inline` reaches the in-process runner.

The runner encodes payloads, which is above this package, so it cannot be imported from here; it registers
itself when it is imported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from redisflow.define.declaration import StepKey
from redisflow.define.resources import Resource
from redisflow.model.errors import RedisflowError

if TYPE_CHECKING:
    from redisflow.define.workflow import Workflow


class InlineRunner(Protocol):
    """What runs a workflow in-process; see `Workflow.run_inline`."""

    def __call__(
        self,
        workflow: Workflow[Any, Any],
        input: Any,
        *,
        stubs: Mapping[StepKey, Any],
        resources: Mapping[Resource[Any], Any],
        real_delays: bool,
    ) -> Awaitable[Any]:
        """Run it and return its output."""


_registered: list[InlineRunner] = []


def set_inline_runner(runner: InlineRunner) -> None:
    """Register what `Workflow.run_inline` calls, in place of what was."""
    _registered[:] = [runner]


def inline_runner() -> InlineRunner:
    """The registered runner.

    Raises:
        RedisflowError: there is none.
    """
    if not _registered:
        raise RedisflowError("the in-process runner is not loaded: import redisflow, or redisflow.inline, first")
    return _registered[0]
