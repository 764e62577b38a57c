"""The backend on Redis, one file a role; `RedisBackend` is all of them."""

from __future__ import annotations

from redisflow.backend.redis.reruns import Reruns
from redisflow.backend.redis.waiting import Waiting


class RedisBackend(Waiting, Reruns):
    """Every role of the backend on a Redis or Valkey server, standalone or Cluster."""
