"""The backend on Redis, one file a role; `RedisBackend` is all of them."""

from __future__ import annotations

from redisflow.backend.base import Backend
from redisflow.backend.redis.durability import Durability
from redisflow.backend.redis.recording import Recording
from redisflow.backend.redis.reruns import Reruns
from redisflow.backend.redis.saves import Saves
from redisflow.backend.redis.waiting import Waiting
from redisflow.backend.redis.workers import Workers


class RedisBackend(Waiting, Reruns, Workers, Saves, Recording, Durability, Backend):
    """Every role of the backend on a Redis or Valkey server, standalone or Cluster."""
