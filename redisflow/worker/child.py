"""The process of one isolated step: `python -m redisflow.worker.child <descriptor>`, started by `isolate`.

What it is to run comes over a socket as one line of JSON: where to import the workflow, which step, its inputs as JSON text. The
output goes into a file of its own, all else (checkpoints, how it ended) back over the socket. Nothing is pickled. The process has
no connection to Redis, and it ends with its parent: by the kernel's signal on Linux, by the end of the socket anywhere.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import importlib.util
import itertools
import json
import logging
import os
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from redisflow import tracing
from redisflow.codec import encode_payload
from redisflow.define import Skip, Step, Task, Workflow
from redisflow.model.errors import RedisflowError, TransitionRefused, UsageError
from redisflow.worker.checkpoints import Checkpoints
from redisflow.worker.failures import describe, is_fatal, retry_after
from redisflow.worker.process import LINE_LIMIT

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the step that the parent names, then end at once, whatever threads are left."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        asyncio.run(_serve(channel))
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)


async def _serve(channel: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=channel, limit=LINE_LIMIT)
    job = json.loads(await reader.readline())
    _die_with(job["parent"])
    _log_to_stderr(job["log_level"])
    link = Link(reader, writer)
    try:
        await _run(job, link)
        end: dict[str, Any] = {"end": "completed", "peak": _peak_memory()}
    except BaseException as error:  # noqa: BLE001 - whatever a body raises is told to the parent
        end = _described(error)
    try:
        text = json.dumps(end)
    except (TypeError, ValueError) as unfit:
        text = json.dumps(_described(unfit))
    writer.write(text.encode() + b"\n")
    await writer.drain()


def _described(error: BaseException) -> dict[str, Any]:
    if isinstance(error, Skip):
        return {"end": "skipped", "reason": error.reason, "metadata": error.metadata, "peak": _peak_memory()}
    shown = describe(error).model_dump(exclude_none=True)
    return {
        "end": "failed", "error": shown, "fatal": is_fatal(error), "retry_after_us": retry_after(error),
        "peak": _peak_memory(),
    }  # fmt: skip


async def _run(job: dict[str, Any], link: Link) -> None:
    loop = asyncio.get_running_loop()
    step = _find_step(job)
    context = ChildContext(job, Checkpoints(link, loop, job["limit"]))
    async with AsyncExitStack() as stack:
        stack.enter_context(tracing.joined(job["trace"]))
        resources = {resource: await stack.enter_async_context(resource.open()) for resource in step.resources}
        kwargs = step.bind(job["input"], job["outputs"], context, resources)
        if step.is_async:
            value = await step.fn(**kwargs)
        else:
            value = await asyncio.to_thread(_call, step, kwargs)
    text = encode_payload(value, what=f"the output of step {step.id!r}", limit=job["limit"])
    # the parent made the file: one that it has taken away belongs to nobody any more
    with os.fdopen(os.open(job["spool"], os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW), "w", encoding="utf-8") as spool:
        spool.write(text)


def _call(step: Step, kwargs: dict[str, Any]) -> Any:
    try:
        return step.fn(**kwargs)
    except StopIteration as error:  # no future takes it
        raise RuntimeError("StopIteration") from error


def _find_step(job: dict[str, Any]) -> Step:
    sys.path[:] = job["path"]
    module = import_source(job["module"], job["file"])
    for value in vars(module).values():
        flow = value.workflow if isinstance(value, Task) else value
        if isinstance(flow, Workflow) and flow.slug == job["workflow"] and job["step"] in flow.steps:
            return flow.steps[job["step"]]
    raise UsageError(f"module {job['module']!r} has no workflow {job['workflow']!r} with step {job['step']!r}")


def import_source(name: str, file: str | None) -> ModuleType:
    """Import a module by its name, or the file that was the parent's `__main__`, under the name of the file."""
    if file is None:
        return importlib.import_module(name)
    stem = Path(file).stem
    spec = importlib.util.spec_from_file_location(stem, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[stem] = module
    spec.loader.exec_module(module)
    return module


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went while this process was starting
        os._exit(1)


def _log_to_stderr(level: int) -> None:
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("redisflow.step").setLevel(min(logging.INFO, level))


def _peak_memory() -> int:
    """Bytes; 0 where the system does not tell. wait4 counts what the parent held when it forked, this does not."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0


class Link:
    """The store of checkpoints as seen from here: calls to the parent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count()
        self._task = asyncio.get_running_loop().create_task(self._read(reader))

    async def load(self) -> dict[tuple[str, int], str]:
        """See `checkpoints.Store`."""
        return {(name, number): text for name, number, text in await self._call("load")}

    async def save(self, name: str, number: int, text: str) -> None:
        """See `checkpoints.Store`."""
        await self._call("save", name, number, text)

    async def save_failure(self, name: str, number: int, error: dict[str, Any]) -> None:
        """See `checkpoints.Store`."""
        await self._call("save_failure", name, number, error)

    async def _call(self, verb: str, *args: Any) -> Any:
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"id": number, "call": verb, "args": args}).encode() + b"\n")
        return await answer

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["id"])
            if "refused" in answer:
                waiting.set_exception(TransitionRefused(answer["refused"]))
            elif "error" in answer:
                waiting.set_exception(RedisflowError(answer["error"]))
            else:
                waiting.set_result(answer["value"])
        os._exit(1)  # the parent is gone


class ChildContext:
    """`ctx` of an isolated step; see `redisflow.StepContext`."""

    def __init__(self, job: dict[str, Any], checkpoints: Checkpoints) -> None:
        self.workflow: str = job["workflow"]
        self.run_id: str = job["run"]
        self.step_id: str = job["step"]
        self.attempt: int = job["attempt"]
        self.worker_id: str = job["worker"]
        self.cancelled = False  # a stop is a kill
        self.checkpoint = checkpoints.run
        self.checkpoint_sync = checkpoints.run_sync

    @property
    def idempotency_key(self) -> str:
        """The same in every attempt."""
        return f"{self.run_id}:{self.step_id}"

    @property
    def logger(self) -> logging.Logger:
        """Logger of the step; the parent reads what it writes to stderr."""
        return logging.getLogger(f"redisflow.step.{self.workflow}.{self.step_id}")


if __name__ == "__main__":
    main()
