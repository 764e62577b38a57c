"""Faults of a Cluster: primaries die, freeze and hand over, slots move, all nodes start anew."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import redis as redis_sync

from bench.soak.nemesis import Nemesis, Say
from bench.soak.servers import NODE_TIMEOUT, Replicated, wait_until
from bench.soak.world import World
from redisflow.backend.keys import Keys
from tests.clusters import Node


class ClusterNemesis(Nemesis[Replicated]):
    """Faults of workers, and of the nodes of a Cluster.

    Args:
        partitions: keys of each; which slots matter.
    """

    def __init__(self, world: World[Replicated], seed: int, say: Say, partitions: Sequence[Keys]) -> None:
        super().__init__(world, seed, say)
        self.partitions = partitions
        self.cluster = world.servers.cluster
        self.failovers = [self.kill_primary, self.freeze_primary, self.restart_all]
        self.kinds += [
            *self.failovers, self.kill_primary, self.hand_over, self.move_slot, self.move_slot, self.silence, self.cut_connections,
            self.flush_functions,
        ]  # fmt: skip

    def kill_primary(self) -> str:
        """SIGKILL; its replica takes its place, and it comes back as a replica of that."""
        victim = self._primary()
        heir = self.cluster.replica_of(victim)
        victim.kill()
        wait_until(lambda: heir.is_primary, 60, "the replica does not take over")
        self._pause(0, 1)
        self.world.servers.heal()
        return f" ({victim.port} to {heir.port})"

    def freeze_primary(self) -> str:
        """SIGSTOP until its replica has taken its place; then it goes on, and does not know yet."""
        victim = self._primary()
        heir = self.cluster.replica_of(victim)
        victim.stop()
        wait_until(lambda: heir.is_primary, 60, "the replica does not take over")
        self._pause(0, 1)
        self.world.servers.heal()
        return f" ({victim.port} to {heir.port})"

    def restart_all(self) -> str:
        """SIGKILL of every node; each comes back with its AOF."""
        for node in self.cluster.nodes:
            node.kill()
        self._pause(0, 1)
        self.world.servers.heal()
        return ""

    def hand_over(self) -> str:
        """A primary hands over to its replica, as before maintenance: nothing is lost."""
        primary = self._primary()
        heir = self.cluster.replica_of(primary)
        heir.ask("CLUSTER", "FAILOVER")
        wait_until(lambda: heir.is_primary, 60, "the replica does not take over")
        self.world.servers.heal()
        return f" ({primary.port} to {heir.port})"

    def move_slot(self) -> str:
        """A partition moves to another primary, some keys at a time."""
        keys = self._chance.choice(self.partitions)
        home = self.cluster.owner(keys.meta)
        away = self._chance.choice([node for node in self.cluster.primaries if node is not home])
        moved = 0
        while self.cluster.owner(keys.meta) is not away:
            with contextlib.suppress(redis_sync.ResponseError):  # IOERR of a MIGRATE: the keys are still there
                for count in self.cluster.migrating(keys.meta, away, batch=100):
                    moved += count
                    time.sleep(0.002)
        self.world.servers.heal()
        return f" ({moved} keys, {home.port} to {away.port})"

    def silence(self) -> str:
        """A node freezes for less than what makes the others give it up."""
        victim = self._primary()
        victim.stop()
        self._pause(0.1, NODE_TIMEOUT / 2000)
        victim.go_on()
        return f" ({victim.port})"

    def cut_connections(self) -> str:
        """Every connection to every node breaks, some times."""
        for _ in range(self._chance.randrange(1, 10)):
            for node in self.cluster.nodes:
                node.ask("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
            self._pause(0, 0.05)
        return ""

    def flush_functions(self) -> str:
        """The library is gone, again and again."""
        for _ in range(30):
            for node in self.cluster.primaries:
                node.ask("FUNCTION FLUSH")
        return ""

    def _primary(self) -> Node:
        """One that holds a partition."""
        return self.cluster.owner(self._chance.choice(self.partitions).meta)
