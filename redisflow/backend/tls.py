"""One TLS context for all connections with the same certificates.

The library makes one for each connection, and each reads every authority that the system knows: some 50 ms in which the event loop
stands still, and with it the connections that are being made. A context is made anew where one of its files has changed.
"""

from __future__ import annotations

import os
from ssl import SSLContext
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import RedisSSLContext, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedConnection

_FILES = ("keyfile", "certfile", "ca_certs")
_contexts: dict[tuple[str, ...], SSLContext] = {}


class SharedTls(SSLConnection):
    """The library's connection with a shared context."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ssl_context.context = _shared(self.ssl_context)


class ManagedSharedTls(SentinelManagedConnection, SharedTls):
    """The same to a primary under Sentinel."""


def _shared(asked: RedisSSLContext) -> SSLContext:
    options = [repr(getattr(asked, name)) for name in asked.__slots__ if name != "context"]
    files = [getattr(asked, name) for name in _FILES]
    key = (*options, *(str(os.stat(file).st_mtime_ns) for file in files if file))
    if key not in _contexts:
        _contexts[key] = asked.get()
    return _contexts[key]


def share_tls(client: Redis | RedisCluster) -> None:
    """Let all connections of a client that has none yet share their context; nothing where it has no TLS."""
    if isinstance(client, RedisCluster):
        if issubclass(client.connection_kwargs["connection_class"], SSLConnection):
            client.connection_kwargs["connection_class"] = SharedTls
            for node in client.nodes_manager.startup_nodes.values():
                node.connection_class = SharedTls
        return
    pool = client.connection_pool
    if not issubclass(pool.connection_class, SSLConnection):
        return
    pool.connection_class = SharedTls
    if isinstance(pool, SentinelConnectionPool):
        pool.connection_class = ManagedSharedTls
        for sentinel in pool.sentinel_manager.sentinels:
            share_tls(sentinel)
