"""Output bound to the step: a context variable says which step runs here, log records carry it, and what is printed or logged goes
to the step's log as well as where it always went.

Standard logging stays standard: a step logs to any logger, and each line that it causes names run, step and attempt. `sys.stdout`
and `sys.stderr` are proxies while a worker of this process runs.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from contextvars import ContextVar
from typing import Any, TextIO

from redisflow.model.text import clean, clean_lines
from redisflow.tracing import current_ids
from redisflow.worker.context import Context

current_step: ContextVar[Context | None] = ContextVar("redisflow_step", default=None)


class StepFilter(logging.Filter):
    """Adds `run_id`, `step_id` and `attempt` to records made while a step runs, and `trace_id` and `span_id` within a span."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        context = current_step.get()
        record.run_id = context.run_id if context else None
        record.step_id = context.step_id if context else None
        record.attempt = context.attempt if context else None
        record.trace_id, record.span_id = current_ids() or (None, None)
        return True


class TextFormatter(logging.Formatter):
    """`12:00:01.123 INFO  redisflow.worker  message  run=… step=… attempt=…`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        """The line itself: a message with line breaks cannot pretend to be several."""
        record.message = clean(record.message)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds, and the traceback where there is one."""
        text = clean_lines(super().format(record))
        run_id = getattr(record, "run_id", None)
        if run_id is not None:
            text += f"  run={run_id} step={record.step_id} attempt={record.attempt}"  # type: ignore[attr-defined]
        trace_id = getattr(record, "trace_id", None)
        return text if trace_id is None else f"{text} trace={trace_id}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in seconds since the epoch, level, logger, message, and the step where one runs."""
        line: dict[str, Any] = {
            "time": round(record.created, 6), "level": record.levelname.lower(), "logger": record.name,
            "message": record.getMessage(),
        }  # fmt: skip
        for name in ("run_id", "step_id", "attempt", "trace_id", "span_id"):
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(form: str = "text", level: int = logging.INFO) -> None:
    """Log to stderr in the given form (`text` or `json`); replaces earlier handlers of the root logger."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(StepFilter())
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


class Proxy:
    """Stands for `sys.stdout` or `sys.stderr`: passes everything on, and gives the running step its copy."""

    def __init__(self, name: str, real: TextIO) -> None:
        self._name = name
        self.real = real

    def write(self, text: str) -> int:
        """As of a text stream."""
        context = current_step.get()
        if context is not None:
            context.write(self._name, text)
        return self.real.write(text)

    def writelines(self, lines: Any) -> None:
        """As of a text stream."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class StepHandler(logging.Handler):
    """Gives the running step what it logs; records of redisflow's own machinery are not the step's."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Never raises."""
        try:
            context = current_step.get()
            foreign = not record.name.startswith("redisflow.") or record.name.startswith("redisflow.step.")
            if context is not None and foreign and not _written_to_proxy():
                context.write("stderr", self.format(record) + "\n")
            if len(logging.root.handlers) == 1 and logging.lastResort and record.levelno >= logging.lastResort.level:
                # without this handler logging would have shown the record by itself
                passthrough("stderr", logging.lastResort.format(record) + "\n")
        except Exception:  # noqa: BLE001 - as every handler of logging
            self.handleError(record)


def _written_to_proxy() -> bool:
    """Whether a handler of the root logger writes into a proxy, which then takes the line."""
    return any(isinstance(getattr(handler, "stream", None), Proxy) for handler in logging.root.handlers)


def passthrough(name: str, text: str) -> None:
    """Write to the real `stdout` or `stderr`."""
    stream = getattr(sys, name)
    real = stream.real if isinstance(stream, Proxy) else stream
    if real is not None:
        try:
            real.write(text)
        except (OSError, ValueError):  # closed, or a terminal that is gone
            return


class Capture:
    """Proxies and handler of this process, in place while at least one worker runs."""

    def __init__(self) -> None:
        self._users = 0
        self._lock = threading.Lock()
        self._handler = StepHandler()
        self._level_set = False

    def acquire(self) -> None:
        """Put them in place, if nobody has yet."""
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            for name in ("stdout", "stderr"):
                if getattr(sys, name) is not None:
                    setattr(sys, name, Proxy(name, getattr(sys, name)))
            logging.root.addHandler(self._handler)
            steps = logging.getLogger("redisflow.step")
            self._level_set = steps.level == logging.NOTSET
            if self._level_set:  # what goes to `ctx.logger` is history, whatever the root logger shows
                steps.setLevel(min(logging.INFO, logging.root.level))

    def release(self) -> None:
        """Take them away, if nobody else needs them."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name in ("stdout", "stderr"):
                stream = getattr(sys, name)
                if isinstance(stream, Proxy):  # else someone has put another in its place
                    setattr(sys, name, stream.real)
            logging.root.removeHandler(self._handler)
            if self._level_set:
                logging.getLogger("redisflow.step").setLevel(logging.NOTSET)


capture = Capture()
