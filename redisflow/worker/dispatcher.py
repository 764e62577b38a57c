"""The turn loop: free slots and finished outcomes in, claimed steps out.

Nothing here awaits: answers come by callback, outcomes are reported by call, and one pump a loop iteration sends what there is.
While a turn is under way the next one fills (group commit): at low load a turn carries one step and goes at once, under load it
carries dozens. Free slots are tokens: a turn takes some along and its answer gives back what it did not use, so that several
partitions share one worker fairly and a silent one holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.steps import parse_answer
from redisflow.backend.replies import Reply
from redisflow.backend.turns import FIELDS, MAX_CLAIMS, Handover, Lane, TurnAnswer, TurnLink, follow_partitions
from redisflow.model.errors import RedisflowError
from redisflow.worker.context import Job

log = logging.getLogger("redisflow.worker")
MAX_SLEEP = 1.0  # seconds without a look, whatever the wake-ups say
MANY_SLOTS = 16  # a partition
LENT_FOR = 1.0  # seconds after which slots that a silent partition holds serve others


class Dispatcher:
    """Turns of one worker over all partitions.

    Args:
        backend: opened.
        worker: `<id>.<boot>`.
        queues: names of the queues it serves.
        concurrency: slots.
        body: packed pairs of StepStarted: worker and concurrency.
        start: called with each claimed job.
        settled: called with each job whose outcome was answered.
        quiet: called after each answer while draining.
        fatal: called when the worker cannot go on.
    """

    def __init__(
        self, backend: RedisBackend, *, worker: str, queues: Sequence[str], concurrency: int, body: bytes,
        start: Callable[[Job], None], settled: Callable[[Job, Reply], None], quiet: Callable[[], None],
        fatal: Callable[[RedisflowError], None],
    ) -> None:  # fmt: skip
        self._backend = backend
        self._loop = asyncio.get_running_loop()
        self._worker = worker
        self._start = start
        self._settled = settled
        self._quiet = quiet
        self._free = list(range(concurrency - 1, -1, -1))
        self._claim_at_most = min(MAX_CLAIMS, max(1, (concurrency + 1) // 2))
        self._pumping = self._starved = False
        self._turn_of: int = 0
        self._jobs: dict[int, list[Job]] = {}
        self._watch: asyncio.TimerHandle | None = None
        self._following: asyncio.Task[None] | None = None
        self._closed = False
        self.draining = False
        count = len(backend.partitions)
        self.links = [
            TurnLink(
                backend, partition, worker=worker, queues=queues, body=body,
                offers=count == 1 or concurrency >= MANY_SLOTS * count,  # an offered slot serves no other partition
                on_answer=self._on_answer, on_fatal=fatal,
            )
            for partition in range(count)
        ]  # fmt: skip
        self._outjobs: list[list[Job]] = [[] for _ in self.links]

    async def open(self) -> None:
        """Connect to every partition, listen for wake-ups, and ask for work."""
        await asyncio.gather(*(link.open() for link in self.links))
        self._watchdog()
        self.pump()

    def close(self) -> None:
        """Close all lines at once."""
        self._closed = True
        for handle in (self._watch, self._following):
            if handle is not None:
                handle.cancel()
        for link in self.links:
            link.close()

    @property
    def idle(self) -> bool:
        """No outcome waits, no turn is under way, and nothing can be handed over to a worker that drains."""
        return not any(link.busy or (self.draining and link.offered is not None) for link in self.links)

    def drain(self) -> None:
        """Claim no more, and withdraw what is offered."""
        self.draining = True
        for link in self.links:
            if not link.connected:
                self._withdraw(link)  # nor could it be told
        self.pump()

    def follow(self) -> None:
        """Look whether partitions lie elsewhere now: something did not answer."""
        if not self._closed and (self._following is None or self._following.done()):
            self._following = self._loop.create_task(follow_partitions(self.links))

    def wake(self, partition: int) -> None:
        """A hint that a partition has work."""
        link = self.links[partition]
        link.due = True
        link.asleep = 0
        if not self._free and link.offered is None and not self.draining:
            lane = link.idle_lane()
            if lane is not None:
                self._send(link, lane, [], woken=True)
        else:
            self.pump()  # at once: another round of the loop costs a call of the system

    def hand(self, partition: int, handover: Handover) -> None:
        """Start what a submit has claimed for this worker."""
        link = self.links[partition]
        if handover.lease <= link.handed:
            return  # an answer has brought it
        if link.offered is None or self.draining:
            if link.awaiting:  # the offer is in the answer, or the turn withdrew it, and the answer brings the step
                link.early = handover
            else:
                self.wake(partition)
            return
        assert handover.claimed is not None
        slot, link.offered = link.offered, None
        link.take_over(handover)
        self._start(Job(partition, handover.lease, handover.claimed, slot))
        link.due, link.asleep = True, 0
        self._schedule_pump()  # behind the step's first line

    def _withdraw(self, link: TurnLink) -> None:
        if link.offered is not None:
            self._free.append(link.offered)
            link.offered = None

    def report(self, job: Job, kind: str, data: bytes, payload: str | bytes = b"", how: str = "") -> None:
        """Send the outcome of a job with the next turn; its slot is free from now on.

        Args:
            job: the job.
            kind: c completed, f failed, k skipped, l released.
            data: envelope of the event.
            payload: JSON text of the output, or the packed error.
            how: see lua/lib/outcome.
        """
        self.links[job.partition].outbox += (job.run, job.step, str(job.lease), kind, data, payload, how)
        self._outjobs[job.partition].append(job)
        self.give_back(job)
        self._schedule_pump()

    def give_back(self, job: Job) -> None:
        """Free the slot of a job."""
        if job.slot >= 0:
            self._free.append(job.slot)
            job.slot = -1

    def _schedule_pump(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Send on every idle lane what there is to send."""
        self._pumping = False
        count = len(self.links)
        self._turn_of += 1
        share = self._claim_at_most
        if (
            count > 1
        ):  # a turn takes no more than its part, so that a partition that is slow to answer leaves some to the others
            share = min(share, max(1, len(self._free) // max(1, sum(link.due for link in self.links))))
        self._starved = False
        for index in range(count):
            link = self.links[(index + self._turn_of) % count]
            while self._has_to_send(link) and (lane := link.idle_lane()):
                slots: list[int] = []
                self._withdraw(link)
                if self._free and not self.draining:
                    slots = self._free[-share:]
                    del self._free[-share:]
                self._send(link, lane, slots, woken=False)
            self._starved = self._starved or (link.due and not self._free)

    def _has_to_send(self, link: TurnLink) -> bool:
        offered = link.offered is not None
        return bool(link.outbox) or (offered if self.draining else link.due and (offered or bool(self._free)))

    def _send(self, link: TurnLink, lane: Lane, slots: list[int], *, woken: bool) -> None:
        if slots:
            link.due = False
            if link.timer:
                link.timer.cancel()
                link.timer = None
        outjobs = self._outjobs[link.partition]
        count = min(len(link.outbox) // FIELDS, 256)
        self._jobs[id(lane)] = outjobs[:count]
        del outjobs[:count]
        link.send(lane, slots, woken)

    def _on_answer(self, link: TurnLink, lane: Lane, answer: TurnAnswer) -> None:
        slots, lane.slots = lane.slots, []
        asked = bool(slots)
        self._withdraw(link)  # each turn does
        missed = answer.missed
        if missed is not None and missed.slot in slots:  # no claim of this turn is for it
            slots.remove(missed.slot)
            slots.append(missed.slot)
        for claimed in answer.claims:
            self._begin(link, answer.now, claimed, slots)
        if answer.offers and slots:
            link.offered = slots.pop()
        self._free += slots
        if missed is not None and missed.lease > link.handed:
            link.take_over(missed)
            if missed.claimed is not None:
                self._begin(link, missed.lease, missed.claimed, [])
        jobs = self._jobs.pop(id(lane), ())
        for job, code in zip(jobs, answer.answers, strict=True):
            self._on_outcome(job, code)
        if asked or link.timer is None:  # also where the slots it asked with were taken back meanwhile
            self._plan_next_look(link, answer)
        if link.early is not None:
            early, link.early = link.early, None
            self.hand(link.partition, early)
        if self._has_to_send(link) or (self._starved and self._free):
            self.pump()
        if self.draining:
            self._quiet()

    def _begin(self, link: TurnLink, lease: int, claimed: list[Any], slots: list[int]) -> None:
        """Start a claimed step in the first of the slots, else in the last that was freed."""
        if slots:
            slot = slots.pop(0)
        elif self._free:
            slot = self._free.pop()
        else:
            slot = -1
        job = Job(link.partition, lease, claimed, slot)
        if (
            slot < 0 or self.draining
        ):  # a late answer: its slots serve others meanwhile, or the worker is on its way out
            self.report(job, "l", b"", b"", "drain")
        else:
            self._start(job)

    def _on_outcome(self, job: Job, code: Any) -> None:
        if code == Reply.OK:
            self._settled(job, Reply.OK)
            return
        settled = parse_answer(code)
        where = f"run={job.run.decode()} step={job.step.decode()} attempt={job.attempt}"
        if settled.reply == Reply.REJECTED:
            log.error(
                "the outcome of a step was rejected: %s  %s",
                self._backend.scripts["turn"].library.locate(settled.detail or ""),
                where,
            )
        elif settled.reply != Reply.ALREADY:
            log.info("outcome not recorded: %s  %s", settled.reply.name, where)
        self._settled(job, settled.reply)

    def _plan_next_look(self, link: TurnLink, answer: TurnAnswer) -> None:
        if answer.next_due == answer.now:
            link.due = True
        elif link.timer is None and not self.draining:
            wait = MAX_SLEEP * random.uniform(0.8, 1.0)
            if answer.next_due:
                wait = min(wait, max(0.0, (answer.next_due - answer.now) / 1e6))
            link.timer = self._loop.call_later(wait, self._look, link)

    def _look(self, link: TurnLink) -> None:
        link.timer = None
        link.due = True
        self._schedule_pump()

    def _watchdog(self) -> None:
        now = time.monotonic()
        for link in self.links:
            for lane in link.lanes:
                if lane.packed is not None and lane.slots and now - lane.sent_at > LENT_FOR and len(self.links) > 1:
                    self._free += lane.slots
                    lane.slots = []
                    self._schedule_pump()
        self._watch = self._loop.call_later(LENT_FOR / 2, self._watchdog)
