"""Deletes a namespace: every key of it, and no other.

For namespaces that were made for a moment. Keys are found by their hash tags, which no other namespace has, so what else lies on
the server is never touched.
"""

from __future__ import annotations

from redisflow.backend.redis.core import RedisCore

PAGE = 500


async def purge(backend: RedisCore) -> int:
    """Delete all keys of the backend's namespace; the backend is good for nothing but `close` after.

    Returns:
        How many keys there were.
    """
    client, deleted = backend.client, 0
    for tag in (f"{{{backend.namespace}}}:", f"{{{backend.namespace}:"):
        page: list[bytes] = []
        async for key in client.scan_iter(match=f"{tag}*", count=PAGE):
            page.append(key)
            if len(page) == PAGE:
                deleted += await client.unlink(*page)
                page = []
        if page:
            deleted += await client.unlink(*page)
    return deleted
