"""Isolated steps, seen from the worker: a process for each execution, killed for real when it is no longer wanted.

The process (`child`) has a session of its own, so a kill takes along whatever it started; it gets its inputs over a socket and
leaves its output in a file of the spool folder, which only this user can read. What it prints goes to the step's log. However it
ends, it is reaped by wait4, which says what it used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from redisflow import tracing
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.recording import Recording
from redisflow.define import Skip, Step, Task, Workflow
from redisflow.model.errors import PayloadTooLarge, UsageError
from redisflow.model.events import StepError
from redisflow.worker.checkpoints import StreamStore
from redisflow.worker.context import Job
from redisflow.worker.failures import ChildFailed
from redisflow.worker.process import Child
from redisflow.worker.threads import Threads


class Encoded(str):
    """JSON text of an output that is encoded already."""


class Isolation:
    """Runs isolated steps of one worker.

    Args:
        backend: opened.
        threads: each process has one that waits for it.
        worker_id: shown in the context.
    """

    def __init__(self, backend: RedisBackend, threads: Threads, *, worker_id: str) -> None:
        self._backend = backend
        self._threads = threads
        self._worker_id = worker_id
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until every process is gone."""
        if self._endings:
            await asyncio.wait(self._endings)

    async def run(
        self, job: Job, step: Step, flow: Workflow[Any, Any], input_text: bytes, outputs: Mapping[str, bytes]
    ) -> Encoded:
        """Run one execution in a process of its own.

        Args:
            job: the execution; its `usage` is set.
            step: its step.
            flow: the step's workflow.
            input_text: the run's input as it is stored, empty where there is none.
            outputs: JSON text of the dependencies' outputs by step id.

        Raises:
            ChildFailed: the body raised, or the process ended without an output.
            Skip: the body did.
        """
        run_id = job.run.decode()
        path = Recording.get_step_output_path(self._backend, flow.slug, run_id, step.id, job.attempt, job.lease)
        _make_spool(path)
        module, file = source_of(flow)
        order = {
            "parent": os.getpid(), "module": module, "file": file, "path": sys.path, "workflow": flow.slug, "step": step.id,
            "run": run_id, "attempt": job.attempt, "worker": self._worker_id, "spool": str(path),
            "limit": self._backend.settings.max_payload_bytes, "log_level": logging.root.level,
            "input": input_text[1:].decode() if input_text else None,
            "outputs": {name: text.decode() for name, text in outputs.items()}, "trace": tracing.carrier(),
        }  # fmt: skip
        context = job.context
        assert context is not None
        store = StreamStore(self._backend, run_id, step.id, job.attempt, job.lease)
        child = Child(self._threads, context.write, store)
        try:
            end = await child.run(order)
            job.usage = child.usage(end)
            return _outcome(end, child.status, path, self._backend.settings.max_payload_bytes)
        finally:
            child.kill()
            ending = asyncio.get_running_loop().create_task(_end(child, path))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            await asyncio.shield(ending)
            job.usage = job.usage or child.usage(None)


async def _end(child: Child, path: Path) -> None:
    await child.close()
    path.unlink(missing_ok=True)


def _outcome(end: dict[str, Any] | None, status: int, path: Path, limit: int) -> Encoded:
    if end is None:
        raise ChildFailed(StepError(name="ChildProcessError", message=f"the step's process {describe_exit(status)}"))
    if end["end"] == "completed":
        with path.open("rb") as spool:
            raw = spool.read(limit + 1)
        if len(raw) > limit:
            raise PayloadTooLarge("the output of the step's process", path.stat().st_size, limit)
        return Encoded(raw.decode())
    if end["end"] == "skipped":
        raise Skip(end["reason"], end["metadata"])
    described = StepError(**end["error"])
    raise ChildFailed(described, fatal=end["fatal"], retry_after_us=end["retry_after_us"])


def describe_exit(status: int) -> str:
    """How a process ended that did not say so itself; `status` is negative for a signal, as in `subprocess`."""
    if status >= 0:
        return f"exited with code {status} before it gave an output"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    return f"was ended by signal {name}"


def _make_spool(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def check_isolated(flows: Iterable[Workflow[Any, Any]]) -> None:
    """Refuse isolated steps whose process could not import their workflow.

    Raises:
        UsageError: a workflow with isolated steps is in no module.
    """
    for flow in flows:
        if any(step.isolate for step in flow.steps.values()):
            source_of(flow)


def source_of(flow: Workflow[Any, Any]) -> tuple[str, str | None]:
    """Module that holds a workflow, and the file to load it from where that is the program itself.

    Raises:
        UsageError: no imported module has it at module level.
    """
    isolated = [step for step in flow.steps.values() if step.isolate]
    likely = [getattr(step.fn, "__module__", "") for step in isolated]
    for name in dict.fromkeys([*likely, *list(sys.modules)]):
        module = sys.modules.get(name)
        values = list(getattr(module, "__dict__", {}).values())
        if not any((value.workflow if isinstance(value, Task) else value) is flow for value in values):
            continue
        spec, file = getattr(module, "__spec__", None), getattr(module, "__file__", None)
        if name != "__main__":
            return name, None
        if spec is not None:  # python -m package.module
            return str(spec.name), None
        if file is not None:
            return name, str(Path(file).absolute())
    raise UsageError(
        f"step {isolated[0].id!r} of workflow {flow.slug!r} has isolate=True, so a process of its own has to import the "
        "workflow: declare it at the top level of a module or file"
    )
