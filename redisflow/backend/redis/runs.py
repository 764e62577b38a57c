"""Runs: submit, look, list, wait, cancel, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from redisflow.backend import keys as k
from redisflow.backend.checks import check_note
from redisflow.backend.redis.header import STATUSES, parse_header
from redisflow.backend.redis.search import Search
from redisflow.backend.replies import Reply
from redisflow.backend.types import CancelResult, Submission, SubmitResult
from redisflow.codec import decode_event, pack
from redisflow.model.errors import (
    InvalidArgument,
    PayloadTooLarge,
    RedisflowError,
    RunExists,
    RunNotFound,
    TransitionRefused,
)
from redisflow.model.states import RunState
from redisflow.model.workflow import Plan

LIVE = ("pending", "running")
Item = tuple[int, str, dict[str, Any], str]
"""Position in the list, run id, RunSubmitted envelope, input."""
Prepared = tuple[str | None, dict[str, Any], str]
"""A submission that was checked: its id where one is given, RunSubmitted envelope, input."""
Results = list[SubmitResult | RedisflowError | None]
MOST_ROUNDS = 10_000
"""Calls of delete for one run: each takes some hundred members or some thousand events away."""
AT_ONCE = 4  # calls of submit under way a partition
PAGE = 1000  # runs read in one round trip
CHUNK = 250  # runs a call of submit: keeps it near 10 ms


class Runs(Search):
    """Everything that concerns a run as a whole."""

    async def submit(self, plan: Plan, submissions: Sequence[Submission]) -> list[SubmitResult]:
        """Submit runs of one plan: each partition's runs in one atomic script a few hundred, all sent at once.

        Raises:
            InvalidArgument: an argument is out of range; nothing was written.
            PayloadTooLarge: an input is over the cap; nothing was written.
            RunExists: a given run id is in use (runs before it in the list were submitted).
        """
        return await self.submit_all(plan, [self.prepare(plan, submission) for submission in submissions])

    async def submit_all(self, plan: Plan, prepared: Sequence[Prepared]) -> list[SubmitResult]:
        """As `submit`, of what was prepared.

        Raises:
            RunExists: as `submit`.
        """
        results: list[SubmitResult] = []
        for result in await self.submit_each(plan, prepared):
            if isinstance(result, RedisflowError):
                raise result
            results.append(result)
        return results

    async def submit_one(self, plan: Plan, prepared: Prepared) -> SubmitResult:
        """As `submit_all`, of one run."""
        run_id, fields, text = prepared
        if run_id is not None or "ih" in fields:
            (result,) = await self.submit_all(plan, [prepared])
            return result
        run_id = k.new_run_id()  # made for this call, so it stands for the request
        item = (0, run_id, fields, text)
        (answer,) = await self._call_submit(plan, self.partition(run_id), [item], request="")
        if answer != Reply.OK:
            raise _unwritten(run_id, answer)
        return SubmitResult(run_id, True)

    async def submit_each(self, plan: Plan, prepared: Sequence[Prepared]) -> list[SubmitResult | RedisflowError]:
        """As `submit_all`, with the error of each run that could not be stored in its place."""
        results: Results = [None] * len(prepared)
        slice_size = CHUNK * len(self.partitions)
        under_way: set[asyncio.Task[None]] = set()
        try:
            for first in range(0, len(prepared), slice_size):
                placed = self._place(prepared[first : first + slice_size], first)
                if len(self.partitions) > 1:
                    await self._reserve_keys(placed, results)
                for partition, items in placed.items():
                    for start in range(0, len(items), CHUNK):
                        chunk = self._submit_chunk(plan, partition, items[start : start + CHUNK], results)
                        if len(prepared) <= CHUNK:
                            await chunk
                        else:
                            under_way.add(asyncio.ensure_future(chunk))
                if under_way:  # Redis works on the last chunks while the next are prepared here
                    await asyncio.sleep(0)
                while len(under_way) >= AT_ONCE * len(self.partitions):
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            if under_way:
                await asyncio.gather(*under_way)
        finally:
            for task in under_way:
                task.cancel()
        return [result for result in results if result is not None]

    def prepare(self, plan: Plan, submission: Submission) -> Prepared:
        """Refuse what could not be stored, before anything of the whole list is.

        Raises:
            InvalidArgument, PayloadTooLarge: as `submit`.
        """
        submission.check()
        if submission.run_id is not None:
            k.check_run_id(submission.run_id)
        if submission.metadata:
            try:
                pack(submission.metadata)
            except (TypeError, ValueError, OverflowError) as error:
                raise InvalidArgument("metadata", submission.metadata, f"JSON-able values ({error})") from None
        return submission.run_id, _fields(plan, submission), self._input_of(plan, submission.input)

    def prepare_input(self, plan: Plan, text: str | None) -> Prepared:
        """As `prepare`, of a submission with nothing but an input; its fields are shared by all of the plan.

        Raises:
            PayloadTooLarge: as `submit`.
        """
        fields = self._plain_fields.get(plan.version)
        if fields is None:
            fields = self._plain_fields[plan.version] = _fields(plan, Submission())
        return None, fields, self._input_of(plan, text)

    def _input_of(self, plan: Plan, text: str | None) -> str:
        limit = self.settings.max_payload_bytes
        if text is not None and len(text) * 4 > limit and (size := len(text.encode())) > limit:
            raise PayloadTooLarge(f"the input of {plan.slug!r}", size, limit)
        return text or ""

    def _place(self, prepared: Sequence[Prepared], offset: int) -> dict[int, list[Item]]:
        """Items by partition."""
        placed: dict[int, list[Item]] = {}
        for position, (given_id, fields, text) in enumerate(prepared, offset):
            run_id = given_id
            if run_id is None:
                run_id = k.new_run_id(k.route_of_key(fields["ih"]) if "ih" in fields else None)
            placed.setdefault(self.partition(run_id), []).append((position, run_id, fields, text))
        return placed

    async def _reserve_keys(self, placed: dict[int, list[Item]], results: Results) -> None:
        """Keys of runs that lie elsewhere: the record first, then the run, so that a crash between them leaves nothing doubled."""
        for partition, items in placed.items():
            for item in tuple(items):
                position, run_id, fields, _ = item
                home = self.partition(k.route_of_key(fields["ih"])) if "ih" in fields else partition
                if home == partition:
                    continue
                fields["ix"] = True
                reply = await self.call("reserve", home, key_hash=fields["ih"], run_id=run_id)
                first = reply[1].decode()
                if first != run_id or (await self.status_of([run_id]))[0]:
                    items.remove(item)
                    results[position] = SubmitResult(first, False)

    async def _call_submit(self, plan: Plan, partition: int, items: Sequence[Item], **named: str) -> list[Any]:
        """The answer of each run; `named` as of `call`."""
        while True:
            number = await self.plan_number(plan, partition)
            plain = _plain_envelope(number)
            rest: list[Any] = []
            for _, run_id, fields, text in items:
                rest += (run_id, pack({**fields, "pl": number}) if fields else plain, text)
            reply = await self.call("submit", partition, rest, **named)
            if reply[0] != Reply.NO_PLAN:
                answers: list[Any] = reply[1]
                return answers
            self._plan_numbers.pop((partition, plan.version), None)

    async def _submit_chunk(self, plan: Plan, partition: int, items: Sequence[Item], results: Results) -> None:
        for item, answer in zip(items, await self._call_submit(plan, partition, items), strict=True):
            position, run_id = item[0], item[1]
            code, first = (answer[0], answer[1].decode()) if isinstance(answer, list) else (answer, run_id)
            if code == Reply.DUPLICATE:
                results[position] = RunExists(run_id)
            elif code == Reply.REJECTED:
                results[position] = _unwritten(run_id, answer)
            elif code == Reply.EXISTS and len(answer) == 3:
                results[position] = await self._submit_elsewhere(plan, item, first)
            else:
                results[position] = SubmitResult(first, code == Reply.OK)

    async def _submit_elsewhere(self, plan: Plan, item: Item, run_id: str) -> SubmitResult | RedisflowError:
        """A key that stands for a run of another partition, which a crash may have left missing."""
        if (await self.status_of([run_id]))[0]:
            return SubmitResult(run_id, False)
        made: Results = [None]
        await self._submit_chunk(plan, self.partition(run_id), [(0, run_id, {**item[2], "ix": True}, item[3])], made)
        assert made[0] is not None
        return made[0]

    async def get_run(self, run_id: str) -> RunState | None:
        """State of a run, or None where there is none."""
        found = await self.get_runs([run_id])
        return found[0]

    async def get_runs(self, run_ids: Sequence[str]) -> list[RunState | None]:
        """States of several runs in one round trip: from the header and the submission of each."""
        if not run_ids:
            return []

        async def read() -> list[Any]:
            pipe = self.client.pipeline(transaction=False)
            for run_id in run_ids:
                keys = self.keys_of(k.check_run_id(run_id))
                pipe.hget(keys.run(run_id), "h")
                pipe.hget(keys.run(run_id), "w")
                pipe.xrange(keys.events(run_id), count=1)
            found: list[Any] = await pipe.execute()
            return found

        replies = await self.server.retry(read)
        states = []
        for index, run_id in enumerate(run_ids):
            header, slug, first = replies[3 * index : 3 * index + 3]
            states.append(await self._run_state(run_id, header, slug, first) if header else None)
        return states

    async def _run_state(self, run_id: str, header: bytes, slug: bytes | None, first: list[Any]) -> RunState:
        head = parse_header(header)
        info = await self.plan_info(self.partition(run_id), head.plan) if head.plan else None
        name = info.slug if info else (slug or b"-").decode()
        submitted: dict[str, Any] = {}
        if first and first[0][1][b"type"] == b"RunSubmitted":
            version = info.version if info else "unknown"
            submitted = decode_event(first[0][0].decode(), first[0][1], name, run_id, lambda _: version)
        return RunState(
            run_id=run_id, workflow_slug=name, status=head.status_word, priority=head.priority, created_at=head.created,
            available_at=submitted.get("availableAtUs", head.created), workflow_attempt_number=head.attempt,
            started_at=head.started or None, completed_at=head.ended or None, timeout=head.timeout or None,
            idempotency_key=submitted.get("idempotencyKey"), metadata=submitted.get("metadata"),
            tags=submitted.get("tags"), input=submitted.get("input"),
        )  # fmt: skip

    async def list_runs(
        self, workflow_slug: str | None = None, status: Iterable[str] = (), tags: Iterable[str] = (),
        limit: int | None = None, offset: int = 0,
    ) -> tuple[list[RunState], int]:  # fmt: skip
        """Runs newest first, with their total before paging; all from indexes.

        Args:
            workflow_slug: only runs of this workflow.
            status: only runs in one of these statuses; none given: in any.
            tags: only runs with all of these tags.
            limit: runs at most; None for all.
            offset: runs to pass over.

        Raises:
            InvalidArgument: names the argument, its value and what is allowed.
        """
        page, total = await self.newest_ids(workflow_slug, status, tags, limit, offset)
        states: list[RunState] = []
        for first in range(0, len(page), PAGE):
            found = await self.get_runs(page[first : first + PAGE])
            states += [state for state in found if state is not None]  # one may be deleted meanwhile
        return states, total

    async def status_of(self, run_ids: Sequence[str]) -> list[str]:
        """Status of each run in a word, "" where there is none; live ones enter the waiters of their partition."""
        by_partition: dict[int, list[int]] = {}
        for index, run_id in enumerate(run_ids):
            by_partition.setdefault(self.partition(run_id), []).append(index)
        words = [""] * len(run_ids)
        for partition, indexes in by_partition.items():
            reply = await self.call("wait", partition, [run_ids[i] for i in indexes])
            for index, letter in zip(indexes, reply[1], strict=True):
                words[index] = STATUSES.get(letter.decode(), "")
        return words

    async def cancel_run(self, run_id: str, reason: str | None = None) -> CancelResult:
        """Cancel a run that is not terminal; a terminal one is left as it is, and the answer says so.

        Raises:
            RunNotFound: there is no such run.
        """
        pair = pack({"r": reason})[1:] if check_note("reason", reason) else b""
        reply = await self.call("cancel", self.partition(k.check_run_id(run_id)), run_id=run_id, reason=pair)
        if reply[0] == Reply.GONE:
            raise RunNotFound(run_id)
        return CancelResult(reply[0] == Reply.OK, STATUSES[reply[1].decode()])

    async def delete_run(self, run_id: str) -> bool:
        """Delete an ended run whole; False where there is none.

        Raises:
            TransitionRefused: the run has not ended.
        """
        for _ in range(MOST_ROUNDS):
            reply = await self.call("delete", self.partition(k.check_run_id(run_id)), run_id=run_id)
            if reply[0] == Reply.NOT_ENDED:
                raise TransitionRefused(f"run {run_id} has not ended: cancel it first")
            if reply[0] == Reply.OK and reply[1]:
                await self._forget_key(reply[1].decode(), run_id)
            if reply[0] != Reply.MORE:
                return bool(reply[0] == Reply.OK)
        raise RedisflowError(f"run {run_id} could not be deleted: run `redisflow verify {run_id} --repair`")

    async def _forget_key(self, hashed: str, run_id: str) -> None:
        await self.call("forget", self.partition(k.route_of_key(hashed)), key_hash=hashed, run_id=run_id)


@cache
def _plain_envelope(number: int) -> bytes:
    """Of a submission with nothing but a plan: most are."""
    return pack({"pl": number})


def _unwritten(run_id: str, answer: list[Any]) -> RedisflowError:
    return RedisflowError(f"run {run_id} could not be written: {answer[1].decode()}")


def _fields(plan: Plan, submission: Submission) -> dict[str, Any]:
    """Envelope of RunSubmitted, save the plan number."""
    fields: dict[str, Any] = {}
    if submission.priority:
        fields["p"] = submission.priority
    if plan.input_schema is not None:
        fields["hs"] = True
    if submission.available_at_us is not None:
        fields["v"] = submission.available_at_us
    elif submission.delay_us:
        fields["dl"] = submission.delay_us
    timeout = submission.timeout_us or plan.timeout_us
    if timeout:
        fields["tm"] = timeout
    if submission.tags:
        fields["tg"] = list(dict.fromkeys(submission.tags))
    if submission.metadata:
        fields["md"] = dict(submission.metadata)
    if submission.idempotency_key is not None:
        fields["ik"], fields["ih"] = submission.idempotency_key, k.key_hash(submission.idempotency_key)
    return fields
