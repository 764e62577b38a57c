"""What a running step notes of itself: checkpoints, which a later attempt replays, and log lines.

Both are events of the run, fenced by the lease of the claim, and neither moves the step: they are inert in every fold. The spool
paths of isolated steps are here too, since their output is on its way to the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from redisflow.backend import keys as k
from redisflow.backend.redis.upkeep import Upkeep
from redisflow.backend.replies import Reply, check_written
from redisflow.codec import unpack

Note = tuple[str, bytes, str]
"""One event to record: its type, its envelope, its payload (JSON text or empty)."""


class Recording(Upkeep):
    """Checkpoints and logs. The methods ask for no more than `Upkeep`, so that each works on any backend made of it."""

    async def record_notes(self: Upkeep, run_id: str, step_id: str, lease: int, notes: Sequence[Note]) -> Reply:
        """Append checkpoints and log lines of one execution, all or none.

        Args:
            run_id, step_id: the step.
            lease: µs; of its claim.
            notes: StepCheckpoint, StepCheckpointFailed and LogEntry. Log lines alone are taken also after the end of their lease,
                as long as no other lease followed.

        Returns:
            OK; else STALE, RUN_ENDED or GONE, and nothing is recorded.

        Raises:
            RedisflowError: the server could not write them.
        """
        rest = [part for note in notes for part in note]
        partition = self.partition(k.check_run_id(run_id))
        reply = await self.call("record", partition, rest, run_id=run_id, step=step_id, lease=lease)
        check_written(reply, run_id)
        return Reply(reply[0])

    async def load_checkpoints(self: Upkeep, run_id: str, step_id: str) -> dict[tuple[str, int], str]:
        """JSON text of every finished checkpoint of a step by name and number, of all attempts; the latest counts."""
        found: dict[tuple[str, int], str] = {}
        wanted = step_id.encode()
        async for _, entry in self.read_stream(run_id):
            if entry[b"type"] == b"StepCheckpoint" and entry[b"step"] == wanted:
                fields = unpack(entry[b"data"])
                found[(fields["nm"], fields["sn"])] = entry[b"payload"].decode()
        return found

    def get_step_output_path(
        self: Upkeep, workflow_slug: str, run_id: str, step_id: str, attempt_number: int, lease: int | None = None
    ) -> Path:
        """Absolute path of the file by which an isolated step's process hands over its output.

        It is another one for each run, step, attempt and lease, so that a process that outlives its lease writes into nothing
        that anyone reads.
        """
        name = "|".join((workflow_slug, k.check_run_id(run_id), step_id, str(attempt_number), str(lease or 0)))
        digest = hashlib.sha256(name.encode()).hexdigest()[:40]
        return self.settings.home.absolute() / "spool" / f"{digest}.json"
