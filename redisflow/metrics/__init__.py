"""Prometheus metrics (extra `metrics`).

Two sources that never count a thing twice: `NamespaceMetrics` reads the backend and tells of all workers at once, `WorkerMetrics`
tells of one worker process. `serve` answers `/metrics` of a process; a web application awaits `NamespaceMetrics.response`.
Nothing here is imported, and no hook is set, where metrics are off.
"""

from __future__ import annotations

from redisflow.model.errors import UsageError

try:
    import prometheus_client as _  # noqa: F401
except ImportError:
    raise UsageError("metrics need the extra `metrics`: pip install 'redisflow[metrics]'") from None

from redisflow.metrics.namespace import NamespaceMetrics
from redisflow.metrics.server import serve
from redisflow.metrics.worker import WorkerMetrics

__all__ = ["NamespaceMetrics", "WorkerMetrics", "serve"]
