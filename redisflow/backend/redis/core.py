"""What every role of the Redis backend stands on: the opened namespace, its partitions, and scripts.

A namespace is created by whoever comes first: `{ns}:layout` says for good how many partitions there are and gives the epoch that
every script checks. A partition whose `meta` is gone while others are there is never made anew silently: that is lost data.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from functools import partial
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.checks import check_span
from redisflow.backend.connection import Server
from redisflow.backend.scripts import load_scripts
from redisflow.backend.types import PlanInfo
from redisflow.codec import decode_payload, unpack
from redisflow.model.errors import NamespaceLost, RedisflowError, ServerUnsuitable
from redisflow.settings import Settings

log = logging.getLogger("redisflow.backend")
SCHEMA = 2
OLDEST = (7, 0, 0)
SCANNED = 500  # keys looked at in one page
READY_DEADLINE = 1_000_000  # µs that `backend_ready` rides out a fault


class RedisCore:
    """Connection, layout and scripts of a namespace.

    Args:
        settings: at least `url` and `namespace`.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.url is None:
            raise ServerUnsuitable("no server given: set REDISFLOW_URL, or pass a URL")
        self.settings = settings
        self.namespace = settings.namespace
        self.server = Server(settings.url, deadline_us=settings.retry_deadline)
        self.scripts = load_scripts()
        self.epoch = ""
        self.partitions: list[k.Keys] = []
        self.info: dict[str, Any] = {}
        self._plan_infos: dict[tuple[int, int], PlanInfo] = {}
        self._plan_numbers: dict[tuple[int, str], int] = {}
        self._plain_fields: dict[str, dict[str, Any]] = {}  # by plan version, see `Runs.prepare_input`

    @property
    def client(self) -> Any:
        """The library's client, for reads."""
        return self.server.client

    async def initialize(self, *, deadline_us: int | None = None) -> None:
        """Connect, check the server, open or create the namespace, load the scripts. Idempotent.

        Args:
            deadline_us: how long to ride out an unreachable server; default: the settings' `retry_deadline`.

        Raises:
            ServerUnavailable: it cannot be reached.
            ServerUnsuitable: it is too old, evicts keys, or the namespace has another schema.
            NamespaceLost: a partition of the namespace is gone.
        """
        check_span("deadline_us", deadline_us, optional=True)
        if self.partitions:
            return
        await self.server.connect(deadline_us=deadline_us)
        try:
            await self._check_server(deadline_us)
            await self._open_namespace(deadline_us)
        except BaseException:
            await self.server.close()
            raise

    async def close(self) -> None:
        """Release every connection; the backend is unusable after."""
        self.partitions = []
        await self.server.close()

    async def backend_ready(self) -> bool:
        """Whether claims can be served now: every partition is there, and runs scripts. The log says why not."""
        try:
            for keys in self.partitions:
                script = self.scripts["wait"]
                await self.server.script(script, keys, script.pack(epoch=self.epoch), deadline_us=READY_DEADLINE)
        except RedisflowError as error:
            log.warning("not ready: %s", error)
            return False
        return bool(self.partitions)

    def partition(self, run_id: str) -> int:
        """Index of the partition that holds a run."""
        count = len(self.partitions)
        return k.partition_of(run_id, count) if count > 1 else 0

    def keys_of(self, run_id: str) -> k.Keys:
        """Keys of the partition that holds a run."""
        return self.partitions[self.partition(run_id)]

    def call(self, name: str, partition: int, rest: Sequence[Any] = (), **named: Any) -> Coroutine[Any, Any, list[Any]]:
        """Run a script on a partition; a `request` argument is filled in where none is given, so that the call may be repeated."""
        script = self.scripts[name]
        if script.repeatable and "request" not in named:
            named["request"] = os.urandom(8).hex()
        argv = script.pack(rest, epoch=self.epoch, **named)
        return self.server.script(script, self.partitions[partition], argv)

    async def server_time(self) -> int:
        """Time of the server's clock, µs; for the time of events see `now`."""
        found = await self.server.retry(lambda: self.client.time())
        seconds, micros = next(iter(found.values())) if isinstance(found, dict) else found
        return int(seconds) * 1_000_000 + int(micros)

    async def now(self) -> int:
        """Time of the server (µs), and never before an event: scripts add `skew`, and write an event a µs."""
        time = await self.server_time()

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for keys in self.partitions:
                pipe.hmget(keys.meta, "clock", "skew")
            found: list[Any] = await pipe.execute()
            return found

        clocks = await self.server.retry(read)
        return max(max(int(float(clock or 0)), time + int(float(skew or 0))) for clock, skew in clocks)

    async def scan_keys(self, prefix: str, *, kind: str | None = None) -> AsyncIterator[str]:
        """Keys with a prefix, which holds a hash tag, some of them twice; each page is ridden out like any read.

        A cursor means nothing to another node: where the partition moves or a replica takes over, the walk begins anew.

        Args:
            prefix: as it stands in the keys.
            kind: of value, as TYPE calls it; None for all.
        """
        match, cursor = "".join(f"\\{c}" if c in "*?[]\\" else c for c in prefix) + "*", 0
        asked = ""

        async def page() -> tuple[Any, list[bytes]]:
            nonlocal asked, cursor
            node = self.client.get_node_from_key(prefix) if self.server.clustered else None
            where = {} if node is None else {"target_nodes": node}
            if node is not None and node.name != asked:
                asked, cursor = node.name, 0
            found: tuple[Any, list[bytes]] = await self.client.scan(cursor, match, SCANNED, _type=kind, **where)
            return found

        while True:
            after, keys = await self.server.retry(page)
            cursor = next(iter(after.values())) if isinstance(after, dict) else after
            for key in keys:
                yield key.decode()
            if not cursor:
                return

    async def plan_info(self, partition: int, number: int) -> PlanInfo:
        """Slug, version and dependencies of a plan number; kept for good, since plans never change."""
        found = self._plan_infos.get((partition, number))
        if found is None:
            key = self.partitions[partition].plan(number)
            head, text = await self.server.retry(lambda: self.client.hmget(key, "meta", "json"))
            if head is None:
                return PlanInfo("", "unknown")
            fields = unpack(head)
            steps = {
                step["id"]: tuple(edge["step"] for edge in step["dependencies"])
                for step in (decode_payload(text)["steps"] if text else ())
            }
            found = PlanInfo(fields["slug"], fields["version"], steps)
            self._plan_infos[(partition, number)] = found
        return found

    async def _check_server(self, deadline_us: int | None) -> None:
        client = self.client
        if self.server.clustered:
            nodes = await self.server.retry(lambda: client.info(target_nodes="primaries"), deadline_us=deadline_us)
            infos = list(nodes.values()) if nodes and all(isinstance(v, dict) for v in nodes.values()) else [nodes]
        else:
            infos = [await self.server.retry(lambda: client.info("everything"), deadline_us=deadline_us)]
        for info in infos:
            check_server(info)
        self.info = infos[0]

    async def _open_namespace(self, deadline_us: int | None) -> None:
        client, key = self.client, k.layout(self.namespace)
        record = {
            "schema": SCHEMA, "epoch": os.urandom(8).hex(),
            "suffixes": _suffixes(self.namespace, self.settings.partitions or (16 if self.server.clustered else 1)),
        }  # fmt: skip
        retry = partial(self.server.retry, deadline_us=deadline_us)
        await retry(lambda: client.hsetnx(key, "record", json.dumps(record)))
        stored, ready = await retry(lambda: client.hmget(key, "record", "ready"))
        layout = json.loads(stored)
        if layout["schema"] != SCHEMA:
            raise ServerUnsuitable(
                f"namespace {self.namespace!r} has schema {layout['schema']}, this redisflow speaks {SCHEMA}: "
                "use the matching version, or another REDISFLOW_NAMESPACE"
            )
        wanted = self.settings.partitions
        if wanted and wanted != len(layout["suffixes"]):
            raise ServerUnsuitable(
                f"namespace {self.namespace!r} has {len(layout['suffixes'])} partitions for good, not {wanted}: "
                "leave REDISFLOW_PARTITIONS out, or use another REDISFLOW_NAMESPACE"
            )
        partitions = [k.Keys(self.namespace, suffix) for suffix in layout["suffixes"]]
        for keys in partitions:
            if not ready:
                await retry(partial(client.zadd, keys.running, {k.RUNNING_ANCHOR: "+inf"}))
                await retry(partial(client.hsetnx, keys.meta, "epoch", layout["epoch"]))
            epoch = await retry(partial(client.hget, keys.meta, "epoch"))
            if epoch is None or epoch.decode() != layout["epoch"]:
                raise NamespaceLost(f"{keys.meta} is missing or foreign: part of namespace {self.namespace!r} was lost")
            if await retry(partial(client.exists, keys.never)):
                raise ServerUnsuitable(f"the key {keys.never} exists, which must never be: delete it")
        if not ready:
            await retry(lambda: client.hset(key, "ready", 1))
        self.epoch, self.partitions = layout["epoch"], partitions


def check_server(info: dict[str, Any]) -> None:
    """Refuse a server that cannot keep what it is told.

    Args:
        info: its INFO.

    Raises:
        ServerUnsuitable: it is older than Redis 7.0 / Valkey 7.2, or evicts keys.
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:3] if part.isdigit()) < OLDEST:
        raise ServerUnsuitable(f"Redis {version} is too old: 7.0 or newer is needed (or Valkey 7.2)")
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction":
        raise ServerUnsuitable(
            f"the server evicts keys (maxmemory-policy {policy}), so runs could vanish: "
            "CONFIG SET maxmemory-policy noeviction"
        )


def _suffixes(namespace: str, count: int) -> list[str]:
    """Hash-tag suffixes whose slots lie evenly over the slot range, and so over the nodes of a Cluster."""
    if count == 1:
        return ["0"]
    from redis.crc import key_slot

    chosen = []
    for part in range(count):
        low, high = part * 16384 // count, (part + 1) * 16384 // count
        tries = (f"{part}" if n == 0 else f"{part}x{n}" for n in range(1_000_000))
        chosen.append(next(s for s in tries if low <= key_slot(f"{{{namespace}:{s}}}".encode()) < high))
    return chosen
