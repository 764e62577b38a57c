"""Faults of a single server: it dies, freezes, forgets, is busy with somebody else's script."""

from __future__ import annotations

import contextlib
import threading

import redis as redis_sync

from bench.soak.nemesis import Nemesis, Say
from bench.soak.servers import Standalone
from bench.soak.world import World


class ServerNemesis(Nemesis[Standalone]):
    """Faults of workers, and of one server."""

    def __init__(self, world: World[Standalone], seed: int, say: Say) -> None:
        super().__init__(world, seed, say)
        self.kinds += [
            self.kill_server, self.kill_server, self.freeze_server, self.long_outage, self.cut_connections, self.flush_functions,
            self.hog, self.read_only,
        ]  # fmt: skip

    def kill_server(self) -> str:
        """SIGKILL of Redis; what it acknowledged is in the kernel's hands."""
        self.world.servers.process.kill()
        self._pause(0, 2)
        self.world.servers.heal()
        return ""

    def freeze_server(self) -> str:
        """SIGSTOP of Redis for less than a threshold."""
        self.world.servers.process.freeze()
        self._pause(0.1, 2)
        self.world.servers.process.thaw()
        return ""

    def long_outage(self) -> str:
        """Redis away for longer than the stale threshold: no crash of the workers."""
        self.world.servers.process.freeze()
        self._pause(4, 7)
        self.world.servers.process.thaw()
        return ""

    def cut_connections(self) -> str:
        """Every connection breaks, some tens of times."""
        with self.world.servers.control() as control:
            for _ in range(self._chance.randrange(1, 40)):
                with contextlib.suppress(redis_sync.RedisError):
                    control.execute_command("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "YES")
                self._pause(0, 0.05)
        return ""

    def flush_functions(self) -> str:
        """The library is gone, again and again."""
        with self.world.servers.control() as control:
            for _ in range(100):
                control.function_flush()
                self._pause(0, 0.01)
        return ""

    def hog(self) -> str:
        """Somebody's endless script: BUSY."""

        def run() -> None:
            with self.world.servers.control() as control, contextlib.suppress(redis_sync.RedisError):
                control.eval("while true do end", 0)

        thread = threading.Thread(target=run)
        thread.start()
        self._pause(0.3, 1.5)
        with self.world.servers.control() as control:
            while thread.is_alive():
                with contextlib.suppress(redis_sync.RedisError):
                    control.script_kill()
                thread.join(0.05)
        return ""

    def read_only(self) -> str:
        """A role taken away and given back."""
        with self.world.servers.control() as control:
            control.replicaof("127.0.0.1", 1)
            self._pause(0.2, 2)
            control.replicaof("NO", "ONE")
        return ""
