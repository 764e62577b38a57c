"""How a URL becomes a client: a standalone server, one under Sentinel, or a Cluster.

    redis://user:pass@host:6379/0          rediss://… with TLS         unix:///path.sock?db=0
    redis+sentinel://host:26379,host2:26379/service/0                  rediss+sentinel://…
    redis+cluster://host:6379,host2:6379                               rediss+cluster://…

Options stand behind a `?`, as the client library names them: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_cert_reqs`. User
and password are those of Redis; Sentinel's own are the options `sentinel_username` and `sentinel_password`.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlencode

from redis._parsers import AsyncCommandsParser
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisClusterException, RedisError, TimeoutError

from redisflow.backend.entries import share_events
from redisflow.backend.tls import share_tls
from redisflow.model.errors import ServerUnavailable

Client = Redis | RedisCluster
_URL = re.compile(
    r"(?P<scheme>rediss?)\+(?P<kind>sentinel|cluster)://(?:(?P<login>[^@/?]*)@)?(?P<hosts>[^/?@]+)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_LOGIN = re.compile(r"(?<=://)([^:@/?]*):[^/?]*@")
_SECRET = re.compile(r"((?:^|[?&])[a-z_]*password=)[^&]*", re.IGNORECASE)
FAULTS = (RedisError, RedisClusterException, OSError)
"""What a call may raise; the library's exception of a Cluster is no RedisError."""
_PORTS = {"cluster": 6379, "sentinel": 26379}
AFTER_THE_FIRST = 0.1  # seconds in which other nodes may answer once one has
ANSWER_WITHIN = 1.0  # seconds after which a node, or a sentinel, is passed over


def redact(url: str) -> str:
    """The URL without its passwords, fit for logs and errors."""
    return _SECRET.sub(r"\1***", _LOGIN.sub(r"\1:***@", url))


@dataclass(frozen=True)
class Address:
    """Where and how to open a connection of one's own to the node of a partition."""

    path: str | None
    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    db: int
    ssl: Any


@dataclass(frozen=True)
class Location:
    """What a URL says.

    Attributes:
        kind: of the deployment.
        plain: the URL of the first host as the client library reads it, with the options that it knows.
        hosts: nodes of a Cluster, or sentinels.
        service: what Sentinel calls the primary.
        sentinel_login: of the sentinels.
    """

    kind: Literal["standalone", "sentinel", "cluster"]
    plain: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)


def parse_location(url: str) -> Location:
    """Read a URL.

    Raises:
        ServerUnavailable: it is not understood.
    """
    if not url.startswith(("redis+", "rediss+")):
        return Location("standalone", url)
    found = _URL.fullmatch(url)
    if found is None:
        raise _misread(url, "no host")
    kind, path = found["kind"], [part for part in (found["path"] or "").split("/") if part]
    try:
        hosts = tuple(_host(text, _PORTS[kind]) for text in found["hosts"].split(","))
    except ValueError as error:
        raise _misread(url, str(error)) from None
    options = {name: values[-1] for name, values in parse_qs(found["query"] or "").items()}
    login = {name[9:]: options.pop(name) for name in ("sentinel_username", "sentinel_password") if name in options}
    service = unquote(path.pop(0)) if kind == "sentinel" and path else ""
    if kind == "sentinel" and not service:
        raise _misread(url, "the name of the service is missing")
    if len(path) > 1 or not all(part.isdigit() for part in path) or (kind == "cluster" and path not in ([], ["0"])):
        raise _misread(url, "a database is a number, and a Cluster has only 0")
    host, port = hosts[0]
    user = f"{found['login']}@" if found["login"] else ""
    at = f"[{host}]" if ":" in host else host
    query = f"?{urlencode(options)}" if options else ""
    plain = f"{found['scheme']}://{user}{at}:{port}/{path[0] if path else ''}{query}"
    return Location("sentinel" if kind == "sentinel" else "cluster", plain, hosts, service, login)


def _host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\[\]]+)(?::(\d{1,5}))?", text)
    if found is None:
        raise ValueError(f"{text!r} is no host:port")
    return found[1].strip("[]"), int(found[2] or port)


def _misread(url: str, why: str) -> ServerUnavailable:
    return ServerUnavailable(
        f"the URL {redact(url)!r} is not understood ({why}): write redis://host:6379/0, rediss://…, unix:///path.sock, "
        "redis+sentinel://host:26379,host2:26379/service or redis+cluster://host:6379,host2:6379"
    )


def make_client(location: Location, url: str) -> Client:
    """The client library's client, without any retry of its own; nothing is connected yet.

    Raises:
        ServerUnavailable: the URL is not understood.
    """
    failover = location.kind != "standalone"  # there another node may answer before a silent one does
    options: dict[str, Any] = {
        "socket_timeout": 5.0 if failover else 30.0, "socket_connect_timeout": 2.0 if failover else 5.0, "max_connections": 200,
    }  # fmt: skip
    try:
        client: Client
        if location.kind == "cluster":
            client = Cluster.of(location, **options)
        elif location.kind == "sentinel":
            client = _under_sentinel(location, **options)
        else:
            client = Redis.from_url(location.plain, retry=Retry(NoBackoff(), 0), **options)
    except (ValueError, TypeError) as error:
        raise _misread(url, str(error)) from None
    share_tls(client)
    share_events(client)
    return client


def _under_sentinel(location: Location, **options: Any) -> Redis:
    given: dict[str, Any] = {**options, **parse_url(location.plain)}
    given.pop("host"), given.pop("port")
    tls = given.pop("connection_class", None) is SSLConnection
    common = {name: value for name, value in given.items() if name.startswith("ssl_")}
    sentinels = Sentinels(  # type: ignore[no-untyped-call]
        location.hosts, sentinel_kwargs={
            **common, **location.sentinel_login, "ssl": tls, "retry": Retry(NoBackoff(), 0),
            "socket_timeout": ANSWER_WITHIN, "socket_connect_timeout": ANSWER_WITHIN,
        }, **given, ssl=tls, retry=Retry(NoBackoff(), 0),
    )  # fmt: skip
    client: Redis = sentinels.master_for(location.service)
    return client


class Sentinels(Sentinel):
    """The library's sentinels, of which none gets lost.

    The library moves the sentinel that answered to the front of its list. Where two callers do so at once, one sentinel stands in
    the list twice and another no more: its connections stay open, and once the others are gone, so is the primary.
    """

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Address of the primary, from the first sentinel that knows one.

        Raises:
            MasterNotFoundError: none does; says what each said.
        """
        said = []
        for sentinel in tuple(self.sentinels):
            try:
                known: dict[str, Any] = await sentinel.sentinel_masters()  # type: ignore[assignment]
            except (ConnectionError, TimeoutError) as error:
                why = str(error)
            else:
                state = known.get(service_name)
                if state and self.check_master_state(state, service_name):
                    self.sentinels.sort(key=lambda other: other is not sentinel)
                    return str(state["ip"]), int(state["port"])
                why = "holds it for dead" if state else "does not watch it"
            at = sentinel.connection_pool.connection_kwargs
            said.append(f"{at['host']}:{at['port']} {why}")
        raise MasterNotFoundError(f"no sentinel knows a primary of {service_name!r}: {'; '.join(said)}")


class Cluster(RedisCluster):
    """The library's client of a Cluster, that no silent node holds up.

    The library asks one node after the other for the layout, each for a whole timeout, while every caller waits. Here only
    those are asked that answer a PING, which all of them are sent at once. And where the library would close every connection to
    every node after a fault of one, which breaks the calls of others in ways that no retry can tell from a mistake, nothing is
    closed here.
    """

    _learning: asyncio.Lock
    _learned = 0

    @classmethod
    def of(cls, location: Location, **options: Any) -> Cluster:
        """A client that starts from the given nodes."""
        given: dict[str, Any] = {**options, **parse_url(location.plain)}
        first = given.pop("host", None), given.pop("port", 6379)
        given.pop("db", None)
        tls = given.pop("connection_class", None) is SSLConnection
        hosts = location.hosts or (first,)
        client = cls(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts], ssl=tls, require_full_coverage=False,
            reinitialize_steps=0, retry=Retry(NoBackoff(), 0), **given,
        )  # fmt: skip
        client.commands_parser = _KnownCommands()
        client._learning = asyncio.Lock()
        return client

    async def initialize(self, *_: Any, **__: Any) -> Cluster:
        """Learn the layout, where it is not known or in doubt; nothing else is touched where that fails."""
        if self._initialize:
            await self.refresh()
            await self.commands_parser.initialize(self.nodes_manager.default_node)
            self._initialize = False
        return self

    async def aclose(self) -> None:
        """The library calls this when the layout is in doubt; connections on which others await an answer stay open."""
        self._initialize = True

    async def close_all(self) -> None:
        """Close every connection."""
        self._initialize = True
        await self.nodes_manager.aclose()
        await self.nodes_manager.aclose("startup_nodes")

    async def refresh(self) -> None:
        """Learn the layout anew; callers that come while one learns it share what it finds."""
        before = self._learned
        async with self._learning:
            if self._learned == before:
                await self._learn()

    async def _learn(self) -> None:
        nodes = list(self.nodes_manager.startup_nodes.values())
        answered = await _answering(nodes) if len(nodes) > 1 else nodes
        for node in nodes if answered else ():
            if node not in answered:  # it comes back with the layout that the others give, where it still belongs to it
                self.nodes_manager.startup_nodes.pop(node.name, None)
                node.update_active_connections_for_reconnect()
                await node.disconnect_free_connections()
        await self.nodes_manager.initialize()
        self._learned += 1


async def _answering(nodes: list[ClusterNode]) -> list[ClusterNode]:
    """Nodes that answer a PING at once, or not long after the first that does."""
    asked = {asyncio.create_task(_answers(node)): node for node in nodes}
    waiting, patience = set(asked), ANSWER_WITHIN
    while waiting:
        done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            break
        if any(task.result() for task in done):
            patience = AFTER_THE_FIRST
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    return [node for task, node in asked.items() if task not in waiting and task.result()]


async def _answers(node: ClusterNode) -> bool:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            await node.execute_command("PING")
    except FAULTS:
        return False
    return True


class _KnownCommands(AsyncCommandsParser):  # type: ignore[misc, unused-ignore]
    """What the server's commands are is asked once: the library asks again after each fault, and of a silent node."""

    async def initialize(self, node: ClusterNode | None = None) -> None:
        """Ask, where nothing is known."""
        if not self.commands:
            await super().initialize(node)

    async def get_keys(self, *args: Any) -> tuple[str, ...] | None:
        """Keys of a command; those of a function are counted in the call, and need no asking."""
        if args[0] == "FCALL":
            return tuple(args[3 : 3 + int(args[2])])
        found: tuple[str, ...] | None = await super().get_keys(*args)
        return found
