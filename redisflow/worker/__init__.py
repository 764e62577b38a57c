"""Workers: claim steps, run them, record how they ended."""

from redisflow.worker.worker import Worker

__all__ = ["Worker"]
