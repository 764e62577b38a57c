"""The heartbeat's own blocking connections: all partitions are asked before any answer is read."""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from redisflow.backend.connection import Address
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
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
        self._server = backend.server
        self._timeout = timeout
        self._address = address
        self._connection = self._make(address)

    def _make(self, address: Address) -> Any:
        pool = self._server.blocking_client(address).connection_pool
        pool.connection_kwargs.update(socket_timeout=self._timeout, socket_connect_timeout=self._timeout)
        return pool.make_connection()

    def send(self, info: str, leases: list[Any]) -> None:
        """Send a beat without awaiting its answer."""
        if not self._connection.is_connected:
            address = self._server.locate(self._key)
            if address != self._address:  # the partition has moved to another node
                self._address, self._connection = address, self._make(address)
            self._connection.connect()
        for chunk in _chunks(leases):
            self._connection.send_command("EVALSHA", self._script.sha, *self._head, info, *chunk)

    def receive(self, info: str, leases: list[Any]) -> list[int]:
        """The answer to `send`: a code a lease."""
        replies: list[Any] = []
        for _ in _chunks(leases):
            try:
                replies.append(self._connection.read_response())
            except NoScriptError:
                replies.append(None)
        codes: list[int] = []
        for chunk, reply in zip(_chunks(leases), replies, strict=True):
            if reply is None:
                self._connection.send_command("EVAL", self._script.text, *self._head, info, *chunk)
                reply = self._connection.read_response()
            if reply[0] != Reply.OK:
                raise RedisError(f"heartbeat answered {Reply(reply[0]).name}")
            codes += reply[2]
        return codes

    def close(self) -> None:
        """Drop the connection; the next `send` opens it anew."""
        self._connection.disconnect()


def _chunks(leases: list[Any]) -> list[list[Any]]:
    """Leases by the call, so that none holds the server up for long; one call, without a lease, where there are none."""
    size = LEASES * FIELDS
    return [leases[first : first + size] for first in range(0, len(leases), size)] or [[]]


def beat_all(lines: list[BeatLine], info: str, leases: list[list[Any]]) -> list[list[int] | None]:
    """One beat over all lines; None for a line that failed, which is logged and mended with the next beat."""
    sent: list[bool] = []
    for line, group in zip(lines, leases, strict=True):
        sent.append(_guarded(line, lambda line=line, group=group: line.send(info, group)) is not _FAILED)
    codes: list[list[int] | None] = []
    for line, group, was_sent in zip(lines, leases, sent, strict=True):
        answer = _guarded(line, lambda line=line, group=group: line.receive(info, group)) if was_sent else _FAILED
        codes.append(None if answer is _FAILED else answer)
    return codes


_FAILED: Any = object()


def _guarded(line: BeatLine, call: Any) -> Any:
    try:
        return call()
    except (RedisError, OSError, RedisflowError) as error:
        log.warning("heartbeat not delivered: %s", error)
        line.close()
        return _FAILED
