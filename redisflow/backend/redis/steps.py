"""Single steps by name: claim, complete, fail, skip, release. Workers use turns instead; these serve tools and tests."""

from __future__ import annotations

import random
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.entries import entry_of, event_with_id
from redisflow.backend.redis.events import Events
from redisflow.backend.replies import Reply
from redisflow.backend.types import Claim, Settled
from redisflow.codec import pack
from redisflow.model.histogram import bucket_of

KINDS = {"c": "completed", "f": "failed", "k": "skipped", "r": "reclaimed", "l": "released"}


class Steps(Events):
    """Transitions of one step, each a script of its own, fenced by the lease."""

    async def claim_step(
        self, run_id: str, step_id: str, worker_id: str, *, slot_index: int | None = None,
        worker_concurrency: int | None = None,
    ) -> Claim | None:  # fmt: skip
        """Scheduled and due to running, for exactly one of any number of callers; None for the others."""
        k.check_step_id(step_id)
        pairs: dict[str, Any] = {"wi": worker_id}
        if slot_index is not None:
            pairs["sl"] = slot_index
        if worker_concurrency is not None:
            pairs["wc"] = worker_concurrency
        partition = self.partition(k.check_run_id(run_id))
        reply = await self.call(
            "claim", partition, run_id=run_id, step=step_id, body=pack(pairs)[1:], pairs_in_body=len(pairs)
        )
        if reply[0] != Reply.OK:
            return None
        return await self.resolve_claim(partition, reply[1], reply[2])

    async def resolve_claim(self, partition: int, lease: int, claimed: list[Any]) -> Claim:
        """A claim as the scripts answer it, with payloads that were too large for the answer read from the stream."""
        run_id, step_id, number, attempt, stored = claimed[:5]
        names = claimed[5::2]
        texts = [await self._payload(partition, run_id.decode(), text) for text in (stored, *claimed[6::2])]
        outputs = {name.decode(): text or "null" for name, text in zip(names, texts[1:], strict=True)}
        return Claim(run_id.decode(), step_id.decode(), attempt, lease, texts[0], outputs, number)

    async def _payload(self, partition: int, run_id: str, stored: bytes) -> str | None:
        if not stored:
            return None
        if stored[:1] == b"=":
            return stored[1:].decode()
        event_id = stored[1:].decode()
        key = self.partitions[partition].events(run_id)
        found = await self.server.retry(lambda: self.client.xrevrange(key, **entry_of(event_id)))
        event = event_with_id(found, event_id)
        return event[b"payload"].decode() if event else None

    async def complete_step(
        self, claim: Claim, output: str, *, duration_us: int = 0, export_output: bool = False
    ) -> Settled:
        """A running step ends well.

        Args:
            claim: from the claim.
            output: JSON text.
            duration_us: how long the body ran.
            export_output: whether it is part of the workflow's output.
        """
        data = pack({"a": claim.attempt_number, "d": duration_us, "x": export_output})
        return await self._settle("complete", claim, data, output, str(bucket_of(duration_us)))

    async def fail_step(
        self, claim: Claim, error: dict[str, str], fingerprints: list[str], *, duration_us: int = 0,
        reason: str = "execution-error", fatal: bool = False, retry_after_us: int | None = None,
    ) -> Settled:  # fmt: skip
        """A running step failed: scheduled again while its policy allows, else failed for good.

        Args:
            claim: from the claim.
            error: `message`, and `name` and `stack` where known.
            fingerprints: the five hashes of `ErrorFingerprints`, in its order.
            duration_us: how long the body ran.
            reason: `execution-error` or `timeout`.
            fatal: no retry, whatever the policy.
            retry_after_us: delay of the retry in place of the policy's.
        """
        data, packed_error, how = failure_parts(
            claim.attempt_number,
            error,
            fingerprints,
            duration_us,
            reason=reason,
            fatal=fatal,
            retry_after_us=retry_after_us,
        )
        return await self._settle("fail", claim, data, packed_error, how)

    async def skip_step(self, claim: Claim, reason: str, *, metadata: dict[str, Any] | None = None) -> Settled:
        """A running step is skipped, and with it what cannot do without it."""
        return await self._settle("skip", claim, skip_data(claim.attempt_number, reason, metadata), "")

    async def release_step(self, claim: Claim) -> Settled:
        """A running step is handed back unharmed; the same attempt runs again."""
        return await self._settle("release", claim, b"", "", "drain")

    async def _settle(self, name: str, claim: Claim, data: bytes, payload: str | bytes, how: str = "") -> Settled:
        reply = await self.call(
            name, self.partition(claim.run_id), run_id=claim.run_id, step=claim.step_id, lease=claim.lease, data=data,
            payload=payload, how=how,
        )  # fmt: skip
        return parse_answer(reply[0])


def parse_answer(answer: Any) -> Settled:
    """An outcome's answer as scripts give it: a code, or a code and a detail."""
    if isinstance(answer, list):
        detail = answer[1].decode() if isinstance(answer[1], bytes) else str(answer[1])
        return Settled(Reply(answer[0]), KINDS.get(detail, detail))
    return Settled(Reply(answer))


def skip_data(attempt: int, reason: str, metadata: dict[str, Any] | None, duration_us: int = 0) -> bytes:
    """Envelope of a primary StepSkipped."""
    fields: dict[str, Any] = {"a": attempt, "d": duration_us, "k": "primary", "r": reason}
    if metadata:
        fields["md"] = metadata
    return pack(fields)


def failure_parts(
    attempt: int, error: dict[str, str], fingerprints: list[str], duration_us: int, *, reason: str, fatal: bool = False,
    retry_after_us: int | None = None, resource_usage: dict[str, Any] | None = None,
) -> tuple[bytes, bytes, str]:  # fmt: skip
    """The worker's half of a failure: envelope, packed error, and `how` of lua/lib/outcome."""
    fields: dict[str, Any] = {"a": attempt, "d": duration_us, "e": error, "fp": fingerprints}
    if resource_usage:
        fields["ru"] = resource_usage
    after = "-" if retry_after_us is None else str(retry_after_us)
    return pack(fields), pack(error), f"{reason} {random.random():.6f} {after} {int(fatal)} {bucket_of(duration_us)}"
