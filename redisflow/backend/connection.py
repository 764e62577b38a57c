"""Connections to Redis, and the one place that retries; `patience.py` says what.

The client library's own retry is off: after a lost reply it would run a script twice without anybody knowing. Here a call is
repeated only where a repeat is safe: reads, and scripts that keep their reply under a request id. What is ridden out (a broken
connection, a server that loads, is read-only or busy, a slot that moves, a namespace that is not there yet after a failover) is
ridden out for minutes, with growing pauses, and then told in one line.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import redis
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,
    MaxConnectionsError,
    ResponseError,
)

from redisflow.backend.call_line import CallLine
from redisflow.backend.keys import Keys
from redisflow.backend.location import FAULTS, Address, Client, Cluster, make_client, parse_location, redact
from redisflow.backend.patience import Backoff, explain, heeding_cancel, is_passing, said
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import Library, Script, lacks_function
from redisflow.backend.tls import SharedTls
from redisflow.model.errors import (
    NamespaceLost,
    PartitionTorn,
    RedisflowError,
    ServerUnavailable,
    ServerUnsuitable,
)

log = logging.getLogger("redisflow.backend")
T = TypeVar("T")
MOST_LIBRARIES = 8  # of other versions on a node, before they are taken away


class Server:
    """One deployment: a standalone server, one under Sentinel, or a Cluster.

    Args:
        url: see `redisflow.backend.location`; that a plain server is a node of a Cluster is found out by asking it.
        deadline_us: how long passing faults are ridden out.

    Raises:
        ServerUnavailable: the URL is not understood.
    """

    def __init__(self, url: str, *, deadline_us: int) -> None:
        self.url = url
        self.deadline_us = deadline_us
        self.retries = 0  # calls repeated since the start
        self.location = parse_location(url)
        self._client: Client | None = None
        self._tls: Any = None
        self._primary: tuple[str, int] | None = None  # what Sentinel said last
        self._loading = asyncio.Lock()
        self._line: CallLine | None = None  # on a standalone server, whose scripts need no routing

    @property
    def clustered(self) -> bool:
        """It is a Cluster, as far as is known."""
        return self.location.kind == "cluster"

    @property
    def client(self) -> Any:
        """The library's client; untyped, since it types every reply as bytes or text or awaitable.

        Raises:
            ServerUnavailable: `connect` was not called, or `close` was.
        """
        if self._client is None:
            raise ServerUnavailable("the backend is not open: call initialize() first, or it was closed")
        return self._client

    async def connect(self, *, deadline_us: int | None = None) -> None:
        """Open the client; ask a plain server whether it is a node of a Cluster."""
        if self._client is not None:
            return
        self._client = make_client(self.location, self.url)
        try:
            if self.location.kind == "standalone":
                info = await self.retry(lambda: self.client.info("cluster"), deadline_us=deadline_us)
                if int(info.get("cluster_enabled", 0)):
                    if "path" in self.client.connection_pool.connection_kwargs:
                        raise ServerUnsuitable("a Redis Cluster is reached by TCP only: use redis://host:port")
                    await self._client.aclose()
                    self.location = replace(self.location, kind="cluster")
                    self._client = make_client(self.location, self.url)
            if self.clustered:
                await self.retry(lambda: self.client.initialize(), deadline_us=deadline_us)
            elif self.location.kind == "sentinel":
                await self.retry(self.refresh_topology, deadline_us=deadline_us)
            else:
                self._line = CallLine(self.locate(""))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Release every connection."""
        line, self._line = self._line, None
        if line is not None:
            line.close()
        client, self._client = self._client, None
        if isinstance(client, Cluster):
            await client.close_all()
        elif isinstance(client, Redis):
            await client.aclose()
            if isinstance(client.connection_pool, SentinelConnectionPool):
                for sentinel in client.connection_pool.sentinel_manager.sentinels:
                    await sentinel.aclose()

    async def retry(self, call: Callable[[], Awaitable[T]], *, deadline_us: int | None = None) -> T:
        """Await `call()`, again and again while the fault is a passing one.

        Raises:
            ServerUnavailable: the deadline passed, or the fault is a lasting one.
        """
        backoff = Backoff(self.deadline_us if deadline_us is None else deadline_us)
        told = False
        while True:
            try:
                return await heeding_cancel(call)
            except FAULTS as error:
                if not is_passing(error) or backoff.over:
                    raise explain(error, self.url) from error
                if not told and not isinstance(error, MaxConnectionsError):  # our own crowd: it waits its turn
                    log.warning("Redis at %s: %s; trying again", redact(self.url), said(error))
                    told = True
            self.retries += 1
            await asyncio.sleep(backoff.next())

    async def script(self, script: Script, keys: Keys, argv: list[Any], *, deadline_us: int | None = None) -> list[Any]:
        """Run a script that may safely be repeated.

        Raises:
            NamespaceLost: the namespace's epoch stayed away.
            PartitionTorn: keys of the partition are missing.
            ServerUnavailable: the deadline passed.
        """
        backoff = Backoff(self.deadline_us if deadline_us is None else deadline_us)
        told = False
        while True:
            try:
                reply = await self.call_once(script, keys, argv)
            except FAULTS as error:
                if not is_passing(error) or backoff.over:
                    if isinstance(error, ResponseError) and "user_function" in str(error):
                        raise RedisflowError(script.library.locate(str(error))) from error
                    raise explain(error, self.url) from error
                if not told and not isinstance(error, MaxConnectionsError):  # our own crowd: it waits its turn
                    log.warning("Redis at %s: %s; trying again", redact(self.url), said(error))
                    told = True
            else:
                if reply[0] == Reply.EPOCH:
                    if await self._epoch_is_another(keys, argv) or backoff.over:
                        raise NamespaceLost(
                            f"the namespace {keys.prefix!r} at {redact(self.url)} is not the one that was opened: "
                            "the server was flushed or replaced. Start again"
                        )
                elif reply[0] == Reply.TORN:
                    if backoff.over:
                        raise PartitionTorn(
                            f"keys of partition {keys.prefix!r} are missing: finish or mend the slot's migration"
                        )
                    log.error("partition %s is torn; waiting", keys.prefix)
                else:
                    return reply
            self.retries += 1
            await asyncio.sleep(backoff.next())

    async def _epoch_is_another(self, keys: Keys, argv: list[Any]) -> bool:
        found = await self.retry(lambda: self.client.hget(keys.meta, "epoch"))
        return found is not None and found.decode() != argv[0]

    async def call_once(self, script: Script, keys: Keys, argv: list[Any]) -> list[Any]:
        """One FCALL, with the library loaded where the server lacks it; no retry."""
        words = ("FCALL", script.function, 2, keys.meta, keys.never, *argv)
        try:
            return await self._call(words)
        except ResponseError as error:
            if not lacks_function(str(error)):
                raise
        async with self._loading:  # many calls miss it at once: one loads it
            try:
                return await self._call(words)
            except ResponseError as error:
                if not lacks_function(str(error)):
                    raise
            return await self._load_and_call(script.library, keys, words)

    async def _load_and_call(self, library: Library, keys: Keys, words: tuple[Any, ...]) -> list[Any]:
        async def call() -> list[Any]:  # `_call` itself would send before the library does
            return await self._call(words)

        reply: list[Any]
        if self._line is not None:  # sent together: nobody's FUNCTION FLUSH comes in between
            _, reply = await asyncio.gather(self.load_library(library, keys), call())
            return reply
        await self.load_library(library, keys)
        return await self._call(words)

    async def load_library(self, library: Library, keys: Keys) -> None:
        """Load the functions into the node of a partition, and take away old ones where they are many."""

        async def ask(command: str, *words: str) -> Any:
            if self._line is not None:
                return await self._line.call(*command.split(), *words)
            node = {"target_nodes": self.client.get_node_from_key(keys.meta)} if self.clustered else {}
            return await heeding_cancel(lambda: self.client.execute_command(command, *words, **node))

        await ask("FUNCTION LOAD", "REPLACE", library.text)
        with contextlib.suppress(ResponseError):  # tidying up
            others = set(_library_names(await ask("FUNCTION LIST", "LIBRARYNAME", "redisflow_*"))) - {library.name}
            for name in others if len(others) > MOST_LIBRARIES else ():  # whoever still needs one loads it again
                await ask("FUNCTION DELETE", name)

    def _call(self, words: tuple[Any, ...]) -> Awaitable[list[Any]]:
        if self._line is not None:
            return self._line.call(*words)
        return heeding_cancel(lambda: self.client.execute_command(*words))

    async def address_of(self, key: str) -> Address:
        """Address of the node that holds a key."""
        return self.locate(key)

    def locate(self, key: str) -> Address:
        """Address of the node that holds a key, as far as is known; any thread may ask."""
        client = self.client
        if isinstance(client, RedisCluster):
            node = client.get_node_from_key(key)
            if node is None:
                raise ConnectionError(f"no node serves the slot of {key}")
            kwargs: dict[str, Any] = dict(client.connection_kwargs)
            kwargs.update(host=node.host, port=node.port)
        else:
            kwargs = dict(client.connection_pool.connection_kwargs)
            if self._primary is not None:
                kwargs["host"], kwargs["port"] = self._primary
        if self.url.startswith("rediss") and self._tls is None:  # one context, so that addresses can be compared
            connection = SharedTls(**{k: v for k, v in kwargs.items() if k.startswith("ssl_")})
            self._tls = connection.ssl_context.get()
        return Address(
            path=kwargs.get("path"), host=kwargs.get("host", "localhost"), port=int(kwargs.get("port", 6379)),
            username=kwargs.get("username"), password=kwargs.get("password"), db=int(kwargs.get("db") or 0),
            ssl=self._tls,
        )  # fmt: skip

    async def refresh_topology(self) -> None:
        """Learn anew which node holds which slot, or which is the primary; nothing on a standalone server."""
        if isinstance(self.client, Cluster):
            await heeding_cancel(self.client.refresh)
        elif self.location.kind == "sentinel":
            sentinels = self.client.connection_pool.sentinel_manager
            self._primary = await heeding_cancel(lambda: sentinels.discover_master(self.location.service))

    def blocking_client(self, address: Address) -> redis.Redis:
        """A synchronous client of one connection, for a thread of its own."""
        retry = redis.retry.Retry(NoBackoff(), 0)
        common: dict[str, Any] = {
            "username": address.username, "password": address.password, "db": address.db, "retry": retry,
            "max_connections": 1,
        }  # fmt: skip
        if address.path:
            return redis.Redis(unix_socket_path=address.path, **common)
        if self.url.startswith("rediss"):
            client = redis.Redis.from_url(self.location.plain, retry=retry, max_connections=1)
            client.connection_pool.connection_kwargs.update(host=address.host, port=address.port)
            return client
        return redis.Redis(host=address.host, port=address.port, **common)


def _library_names(listed: Any) -> Iterator[str]:
    """Names of our libraries in the reply of FUNCTION LIST, whichever form the protocol gives it."""
    if isinstance(listed, bytes):
        if re.fullmatch(rb"redisflow_[0-9a-f]{12}", listed):
            yield listed.decode()
    elif isinstance(listed, (list, dict)):
        for each in [*listed, *(listed.values() if isinstance(listed, dict) else ())]:
            yield from _library_names(each)
