"""Logging bound to the step: a context variable says which step runs here, and log records carry it.

Standard logging stays standard: a step logs to any logger, and each line that it causes names run, step and attempt.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from typing import Any

from redisflow.worker.context import Context

current_step: ContextVar[Context | None] = ContextVar("redisflow_step", default=None)


class StepFilter(logging.Filter):
    """Adds `run_id`, `step_id` and `attempt` to records made while a step runs."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        context = current_step.get()
        record.run_id = context.run_id if context else None
        record.step_id = context.step_id if context else None
        record.attempt = context.attempt if context else None
        return True


class TextFormatter(logging.Formatter):
    """`12:00:01.123 INFO  redisflow.worker  message  run=… step=… attempt=…`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback where there is one."""
        text = super().format(record)
        run_id = getattr(record, "run_id", None)
        return text if run_id is None else f"{text}  run={run_id} step={record.step_id} attempt={record.attempt}"  # type: ignore[attr-defined]


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Time in seconds since the epoch, level, logger, message, and the step where one runs."""
        line: dict[str, Any] = {
            "time": round(record.created, 6), "level": record.levelname.lower(), "logger": record.name,
            "message": record.getMessage(),
        }  # fmt: skip
        for name in ("run_id", "step_id", "attempt"):
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
