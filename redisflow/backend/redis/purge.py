"""Deletes a namespace: every key of it, and no other.

For namespaces that were made for a moment. Keys are found by their hash tags, which no other namespace has, so what else lies on
the server is never touched.
"""

from __future__ import annotations

from functools import partial

from redisflow.backend import keys as k
from redisflow.backend.redis.core import RedisCore

PAGE = 500


async def purge(backend: RedisCore) -> int:
    """Delete all keys of the backend's namespace; the backend is good for nothing but `close` after.

    Returns:
        How many keys there were.
    """
    server, deleted = backend.server, 0
    for prefix in (k.layout(backend.namespace).removesuffix("layout"), *(keys.prefix for keys in backend.partitions)):
        page: list[str] = []
        async for key in backend.scan_keys(prefix):
            page.append(key)
            if len(page) == PAGE:
                deleted += await server.retry(partial(backend.client.unlink, *page))
                page = []
        if page:
            deleted += await server.retry(partial(backend.client.unlink, *page))
    return deleted
