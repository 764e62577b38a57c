"""`/metrics` of a process, answered from a thread of its own, so that a blocked loop can still be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import TimeoutError as NoAnswer
from contextlib import asynccontextmanager, suppress

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from redisflow.metrics.namespace import PATIENCE, NamespaceMetrics
from redisflow.model.errors import UsageError

log = logging.getLogger("redisflow.metrics")


@asynccontextmanager
async def serve(collector: Collector, *, host: str, port: int) -> AsyncIterator[int]:
    """Serve while the context is open.

    Args:
        collector: `WorkerMetrics` or `NamespaceMetrics`.
        host: address to listen on.
        port: 0 takes a free one.

    Yields:
        The port.

    Raises:
        UsageError: the address cannot be listened on.
    """
    registry = CollectorRegistry()
    if isinstance(collector, NamespaceMetrics):
        collector = _FromThread(collector, asyncio.get_running_loop())
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UsageError(f"metrics cannot listen on {host}:{port} ({error}): give another --metrics-port") from None
    registry.register(collector)
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)  # takes half a second, and a worker may still have steps to end
        thread.join()
        server.server_close()


class _FromThread(Collector):
    """Has the loop look at the server before the thread collects."""

    def __init__(self, metrics: NamespaceMetrics, loop: asyncio.AbstractEventLoop) -> None:
        self._metrics = metrics
        self._loop = loop

    def describe(self) -> list[Metric]:
        """Nothing: registering must not wait for the loop."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Families, of the last look where the loop does not answer."""
        look = asyncio.run_coroutine_threadsafe(self._metrics.refresh(), self._loop)
        with suppress(NoAnswer):
            look.result(PATIENCE + 1)
        yield from self._metrics.collect()
