"""The heartbeat's own blocking connections, one a partition, each used by a thread of its own."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import RedisError, ResponseError

from redisflow.backend.location import Address
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import lacks_function
from redisflow.model.errors import RedisflowError

log = logging.getLogger("redisflow.worker")
FIELDS = 3  # of a lease: run, step, lease
LEASES = 300  # a call


class BeatLine:
    """A blocking connection to the node of one partition.

    Args:
        backend: opened.
        partition: index.
        worker: `<id>.<boot>`.
        address: of the node.
        timeout: seconds for an answer.
    """

    def __init__(self, backend: RedisBackend, partition: int, worker: str, address: Address, timeout: float) -> None:
        self._script = backend.scripts["heartbeat"]
        keys = backend.partitions[partition]
        self._head = (2, keys.meta, keys.never, backend.epoch, worker)
        self._key = keys.meta
        self._workers, self._worker = keys.workers, worker
        self._server = backend.server
        self._timeout = timeout
        self._address = address
        self._connection = self._make(address)
        self._delivered = True

    def _make(self, address: Address) -> Any:
        pool = self._server.blocking_client(address).connection_pool
        pool.connection_kwargs.update(socket_timeout=self._timeout, socket_connect_timeout=self._timeout)
        return pool.make_connection()

    def beat(self, info: str, leases: list[Any]) -> list[int] | None:
        """One beat: a code a lease. None where it was not delivered; the next one connects anew.

        The log tells of the first of several that were not delivered, and when they are again.

        Args:
            info: what the worker says of itself, JSON.
            leases: run, step and lease in turn.
        """
        try:
            codes = self._beat(info, leases)
        except (RedisError, OSError, RedisflowError) as error:
            if self._delivered:
                log.warning("heartbeat not delivered: %s; trying again", error)
            self._delivered = False
            self.close()
            return None
        if not self._delivered:
            log.info("heartbeats are delivered again")
        self._delivered = True
        return codes

    def _beat(self, info: str, leases: list[Any]) -> list[int]:
        if not self._connection.is_connected:
            address = self._server.locate(self._key)
            if address != self._address:  # the partition has moved to another node
                self._address, self._connection = address, self._make(address)
            self._connection.connect()
        codes: list[int] = []
        for chunk in _chunks(leases):
            codes += self._beat_chunk(info, chunk)
        return codes

    def _beat_chunk(self, info: str, leases: list[Any]) -> list[int]:
        call = ("FCALL", self._script.function, *self._head, info, *leases)
        self._connection.send_command(*call)
        try:
            reply = self._connection.read_response()
        except ResponseError as error:
            if not lacks_function(str(error)):
                raise
            self._connection.send_command("FUNCTION", "LOAD", "REPLACE", self._script.library.text)
            self._connection.send_command(*call)
            self._connection.read_response()
            reply = self._connection.read_response()
        if reply[0] != Reply.OK:
            raise RedisError(f"heartbeat answered {Reply(reply[0]).name}")
        codes: list[int] = reply[2]
        return codes

    def leave(self) -> None:
        """The worker ends: it is no longer one of those that are alive. Where no server answers, time tells."""
        if not self._connection.is_connected:
            return
        try:
            self._connection.send_command("ZREM", self._workers, self._worker)
            self._connection.read_response()
        except (RedisError, OSError) as error:
            log.debug("no leave taken: %s", error)

    def close(self) -> None:
        """Drop the connection; the next beat opens it anew."""
        self._connection.disconnect()


def _chunks(leases: list[Any]) -> list[list[Any]]:
    """Leases by the call, so that none holds the server up for long; one call, without a lease, where there are none."""
    size = LEASES * FIELDS
    return [leases[first : first + size] for first in range(0, len(leases), size)] or [[]]
