"""A Redis Cluster of real servers on loopback, formed by CLUSTER commands and ended by their handles.

Each node is a `TestServer`, so that a test kills, stops and starts it as it does a single one. Slots lie in equal parts on the
primaries; `migrate` moves one as `redis-cli --cluster reshard` does, in steps that a test may stop between.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis as redis_sync
from redis.crc import key_slot

from tests.conftest import TestServer, free_port, until

SLOTS = 16384


class Node(TestServer):
    """One node, with what a test asks it."""

    __test__ = False
    bus = 0

    def ask(self, *words: Any) -> Any:
        """One command, over the node's unix socket."""
        with contextlib.closing(self.client()) as client:
            return client.execute_command(*words)

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return _text(self.ask("CLUSTER MYID"))

    @property
    def is_primary(self) -> bool:
        return _text(self.ask("ROLE")[0]) == "master"

    @property
    def knows(self) -> list[str]:
        """A line for each node it is in touch with."""
        found = self.ask("CLUSTER NODES")
        lines = found if isinstance(found, dict) else _text(found).splitlines()
        return [str(line) for line in lines]

    def stop(self) -> None:
        """Freeze it: its connections stay open, and nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End `stop`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


class TestCluster:
    """Primaries with replicas.

    Args:
        options: for every node, as on the command line.
        primaries: how many.
        replicas: of each primary.
        node_timeout: ms without an answer after which a node is taken for dead.
        replica_environment: environment variables of the replicas alone.
        binary: the server program; default: that of all tests.
        tls: files of `make_certificates`; all ports then speak TLS alone.
    """

    __test__ = False

    def __init__(
        self, *options: str, primaries: int = 3, replicas: int = 0, node_timeout: int = 1500,
        replica_environment: dict[str, str] | None = None, binary: str | None = None, tls: dict[str, Path] | None = None,
    ) -> None:  # fmt: skip
        self.nodes: list[Node] = []
        try:
            for index in range(primaries * (1 + replicas)):
                bus = free_port()
                secret = ("--tls-cluster", "yes") if tls else ()
                self.nodes.append(
                    Node(
                        "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(node_timeout),
                        "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0", *secret, *options, tcp=True,
                        binary=binary, tls=tls, environment=replica_environment if index >= primaries else None,
                    )
                )  # fmt: skip
                self.nodes[-1].bus = bus
            self._form(primaries)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.nodes[0].port}"

    @property
    def primaries(self) -> list[Node]:
        """The nodes that are primaries now; those that do not answer are left out."""
        return [node for node in self.nodes if node.alive and node.is_primary]

    def owner(self, key: str) -> Node:
        """The primary that holds a key's slot, as the primaries themselves see it."""
        slot = key_slot(key.encode())
        for node in self.primaries:
            for line in _slots(node):
                if line[0] <= slot <= line[1] and line[2] == node.port:
                    return node
        raise LookupError(f"nobody holds slot {slot}")

    def replica_of(self, primary: Node) -> Node:
        """A replica of a primary that is in step with it."""
        for node in self.nodes:
            if node.alive and node is not primary:
                role = node.ask("ROLE")
                if _text(role[0]) == "slave" and int(role[2]) == primary.port:
                    return node
        raise LookupError(f"{primary.port} has no replica")

    def settle(self, timeout: float = 30) -> None:
        """Wait until every node that runs finds the cluster whole."""
        until(lambda: all(self._is_whole(node) for node in self.nodes if node.alive), timeout)

    def in_step(self, timeout: float = 20) -> None:
        """Wait until every replica has what its primary has."""
        until(lambda: all(_in_step(node) for node in self.nodes if node.alive and not node.is_primary), timeout)

    def migrate(self, key: str, target: Node) -> None:
        """Move the slot of a key, with all that is in it, to another primary."""
        for _ in self.migrating(key, target):
            pass

    def migrating(self, key: str, target: Node, batch: int = 10) -> Iterator[int]:
        """The same in steps; each gives how many keys were moved by it."""
        source, slot = self.owner(key), key_slot(key.encode())
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        while keys := source.ask("CLUSTER GETKEYSINSLOT", slot, batch):
            source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
            yield len(keys)
        for node in (target, source, *(n for n in self.primaries if n not in (target, source))):
            node.ask("CLUSTER SETSLOT", slot, "NODE", target.id)

    def tear(self, keys: list[str], target: Node) -> None:
        """Move some keys of a slot and give up in the middle, as after a failover that forgets the migration."""
        source, slot = self.owner(keys[0]), key_slot(keys[0].encode())
        target.ask("CLUSTER SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target.id)
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (source, target):
            node.ask("CLUSTER SETSLOT", slot, "STABLE")

    def close(self) -> None:
        for node in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                node.go_on()
            node.close()

    def _form(self, primaries: int) -> None:
        edges = [SLOTS * index // primaries for index in range(primaries + 1)]
        for epoch, node in enumerate(self.nodes, 1):
            node.ask("CLUSTER SET-CONFIG-EPOCH", epoch)
        for node, (low, high) in zip(self.nodes, itertools.pairwise(edges), strict=False):
            node.ask("CLUSTER ADDSLOTSRANGE", low, high - 1)
        for node in self.nodes[1:]:
            self.nodes[0].ask("CLUSTER MEET", "127.0.0.1", node.port, node.bus)
        until(lambda: all(len(node.knows) == len(self.nodes) for node in self.nodes), 30)
        until(lambda: not any("handshake" in line for node in self.nodes for line in node.knows), 30)
        for index, node in enumerate(self.nodes[primaries:]):
            node.ask("CLUSTER REPLICATE", self.nodes[index % primaries].id)
        self.settle()
        self.in_step()

    def _is_whole(self, node: Node) -> bool:
        try:
            info = node.ask("CLUSTER INFO")
        except redis_sync.RedisError:
            return False
        return "ok" in str(info.get("cluster_state") if isinstance(info, dict) else info)


def _slots(node: Node) -> list[tuple[int, int, int]]:
    """First and last slot of each range, and the port of its primary."""
    found = node.ask("CLUSTER SLOTS")
    if isinstance(found, dict):
        return [(low, high, int(entry["primary"][1])) for (low, high), entry in found.items()]
    return [(int(low), int(high), int(primary[1])) for low, high, primary, *_ in found]


def _in_step(node: Node) -> bool:
    info = node.ask("INFO", "replication")
    return bool(info["master_link_status"] == "up" and not info["master_sync_in_progress"])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
