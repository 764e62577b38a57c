"""Whether replicas have what was acknowledged: WAIT, on a connection of its own.

Redis counts replication by offset, and a connection knows the offset of its last write. So a small write that comes after the
acknowledged ones, and WAIT behind it on the same connection, speak for all of them, and nothing in the hot path has to change.
The runs are looked for in the same breath: after a failover in between, the new primary may lack them, and would confirm only its
own write.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from redisflow.backend.channel import open_channel
from redisflow.backend.location import FAULTS
from redisflow.backend.redis.core import RedisCore
from redisflow.model.errors import NotReplicated

PROBE_MS = 1_000
"""How long the small write stays."""
GRACE = 5.0  # seconds on top of the timeout, for the way there and back


class Durability(RedisCore):
    """Confirmation by replicas."""

    async def confirm_replicated(self, run_ids: Sequence[str], *, timeout_us: int, replicas: int = 1) -> None:
        """Wait until replicas have the runs.

        Args:
            run_ids: runs whose submission was acknowledged.
            timeout_us: how long to wait (µs), each partition at the same time.
            replicas: how many must have them.

        Raises:
            NotReplicated: not within the timeout, or the primary has lost runs meanwhile; says which, and what holds of them.
        """
        groups: dict[int, list[str]] = {}
        for run_id in dict.fromkeys(run_ids):
            groups.setdefault(self.partition(run_id), []).append(run_id)
        answers = await asyncio.gather(
            *(self._confirm(partition, group, timeout_us, replicas) for partition, group in groups.items())
        )
        missing = [run_id for lost, _ in answers for run_id in lost]
        waiting = [run_id for _, unsure in answers for run_id in unsure]
        if missing:
            raise NotReplicated(missing, stored=False)
        if waiting:
            raise NotReplicated(waiting, stored=True)

    async def _confirm(
        self, partition: int, run_ids: list[str], timeout_us: int, replicas: int
    ) -> tuple[list[str], list[str]]:
        """Runs that are not there, and runs that too few replicas have."""
        keys = self.partitions[partition]
        timeout_ms = max(1, timeout_us // 1000)
        try:
            address = await self.server.address_of(keys.meta)
            channel = await open_channel(address, lambda _: None)
        except OSError:
            return [], run_ids
        try:
            there = [channel.call("EXISTS", keys.run(run_id)) for run_id in run_ids]
            probe = channel.call("SET", keys.once(secrets.token_hex(8)), "", "PX", str(PROBE_MS))
            confirmed = channel.call("WAIT", str(replicas), str(timeout_ms))
            async with asyncio.timeout(timeout_ms / 1000 + GRACE):
                *found, _, count = await asyncio.gather(*there, probe, confirmed)
        except FAULTS:  # the line broke, or the node no longer serves the partition
            return [], run_ids
        finally:
            channel.close()
        missing = [run_id for run_id, exists in zip(run_ids, found, strict=True) if not exists]
        return missing, [] if count >= replicas else run_ids
