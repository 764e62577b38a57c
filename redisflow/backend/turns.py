"""A worker's line to one partition: turns in two lanes, repeated unchanged until they are answered.

A turn carries all outcomes since the last one and asks for as many steps as there are free slots, in one FCALL. Two lanes let
Redis work on one turn while the worker handles the answer to the other. The server keeps the last turn of each lane, so that the
repeat of a turn whose answer was lost gives the same answer: this class repeats for ever, and gives up only when the namespace
itself is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import hiredis

from redisflow.backend.channel import Channel, open_channel, pack_command
from redisflow.backend.location import FAULTS, Address
from redisflow.backend.patience import Backoff
from redisflow.backend.redis import RedisBackend
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import lacks_function
from redisflow.model.errors import NamespaceLost, RedisflowError

log = logging.getLogger("redisflow.worker")
MAX_CLAIMS = 64
MAX_OUTCOMES = 256
FIELDS = 7  # of an outcome: run, step, lease, kind, data, payload, how
SILENT = 10.0  # seconds without an answer after which a connection is taken for dead
SLOTS = [b"\xcd" + number.to_bytes(2, "big") for number in range(10_000)]


class Lane:
    """One turn at a time: its number, and what is under way."""

    __slots__ = ("number", "outcomes", "packed", "sent_at", "seq", "slots")

    def __init__(self, number: int) -> None:
        self.number = number
        self.seq = 0
        self.packed: bytes | None = None
        self.outcomes: Sequence[Any] = ()
        self.slots: list[int] = []
        self.sent_at = 0.0


@dataclass(slots=True)
class Handover:
    """A step that a submit claimed for a worker that slept.

    Attributes:
        lease: of the claim (µs).
        slot: number of the slot that was offered; None in a wake-up, whose worker knows.
        claimed: as in `TurnAnswer.claims`; None where the claim no longer stands.
    """

    lease: int
    slot: int | None
    claimed: list[Any] | None

    @classmethod
    def parse(cls, parts: list[Any]) -> Handover:
        """From lease, packed slot, and the claim where there is one."""
        return cls(parts[0], int.from_bytes(parts[1][1:], "big"), parts[2] if len(parts) > 2 else None)

    @classmethod
    def unpack(cls, message: bytes) -> Handover:
        """From a wake-up that brings a step."""
        lease, run, step, number, attempt, stored = message.split(b"\n", 5)
        return cls(int(lease), None, [run, step, int(number), int(attempt), stored])


@dataclass(slots=True)
class TurnAnswer:
    """What a turn gave.

    Attributes:
        now: the server's time (µs), the lease of every claim in it.
        next_due: when the next step of the worker's queues will be due (µs); `now` where more is due already, 0 where none
            is known.
        answers: a code an outcome, in order.
        claims: run, step, plan number, attempt, input, then dependency and output in turn.
        offers: the last slot of the turn is offered: a submit may hand a step over for it.
        missed: what was handed over and did not arrive.
    """

    now: int
    next_due: int
    answers: list[Any]
    claims: list[list[Any]]
    offers: bool = False
    missed: Handover | None = None


class TurnLink:
    """Lanes of a worker to one partition.

    Args:
        backend: opened.
        partition: index.
        worker: `<id>.<boot>`.
        queues: names of the queues it serves, or `["*"]`.
        body: packed pairs of StepStarted.
        offers: a submit may hand a step over while the worker sleeps.
        on_answer: called with the link, the lane and the answer.
        on_fatal: called when the namespace is gone.
    """

    def __init__(
        self, backend: RedisBackend, partition: int, *, worker: str, queues: Sequence[str], body: bytes,
        offers: bool, on_answer: Callable[[TurnLink, Lane, TurnAnswer], None], on_fatal: Callable[[RedisflowError], None],
    ) -> None:  # fmt: skip
        self.backend = backend
        self.partition = partition
        self.lanes = (Lane(0), Lane(1))
        self.outbox: list[Any] = []
        self.due = True
        self.asleep = 0
        self.offered: int | None = None  # slot that a submit may hand a step over for
        self.handed = 0  # the last lease that was handed over
        self.handovers = 0  # steps that were handed over since the start
        self.early: Handover | None = None  # came while a turn was under way
        self.repeats = 0  # turns sent again since the start
        self.timer: asyncio.TimerHandle | None = None
        self._keys = backend.partitions[partition]
        self._script = backend.scripts["turn"]
        self._head = ("FCALL", self._script.function, "2", self._keys.meta, self._keys.never, backend.epoch, worker)
        self._queues = ",".join(queues)
        self._body = body
        self._offers = offers
        self._on_answer = on_answer
        self._on_fatal = on_fatal
        self._channel: Channel | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._epoch_trouble: Backoff | None = None
        self._refusals: Backoff | None = None  # since the node has not served the partition
        self._address: Address | None = None
        self._unloadable = False  # the server refused the library
        self._closed = False

    async def open(self) -> None:
        """Connect for the first time; later losses mend themselves."""
        self._reconnect()
        assert self._connecting is not None
        await self._connecting
        self._watchdog()

    def close(self) -> None:
        """Close at once; what is under way is not answered."""
        self._closed = True
        for handle in (self.timer, self._watch, self._connecting):
            if handle is not None:
                handle.cancel()
        if self._channel is not None:
            self._channel.close()

    def observe(self, seen: Callable[[Lane, TurnAnswer], None]) -> None:
        """Show every answer to `seen` before it is handled; who never calls this pays nothing."""
        handle = self._on_answer

        def show(link: TurnLink, lane: Lane, answer: TurnAnswer) -> None:
            seen(lane, answer)
            handle(link, lane, answer)

        self._on_answer = show

    def take_over(self, handover: Handover) -> None:
        """Note what has arrived, so that the next turn says so."""
        self.handed = handover.lease
        self.handovers += handover.claimed is not None

    def idle_lane(self) -> Lane | None:
        """A lane without a turn under way."""
        for lane in self.lanes:
            if lane.packed is None:
                return lane
        return None

    @property
    def connected(self) -> bool:
        """A turn would go out at once."""
        return self._channel is not None and not self._channel.closed

    @property
    def awaiting(self) -> bool:
        """A turn is under way."""
        return any(lane.packed is not None for lane in self.lanes)

    @property
    def busy(self) -> bool:
        """A turn is under way, or an outcome waits for one."""
        return bool(self.outbox) or self.awaiting

    def send(self, lane: Lane, slots: list[int], woken: bool) -> None:
        """Send the next turn in a lane: up to 256 outcomes from the outbox, and a claim for the slots."""
        outcomes = self.outbox[: MAX_OUTCOMES * FIELDS]
        del self.outbox[: MAX_OUTCOMES * FIELDS]
        lane.seq += 1
        lane.outcomes, lane.slots = outcomes, slots
        asleep = 2 if woken and not slots else self.asleep
        lane.packed = pack_command(
            *self._head, str(lane.number), str(lane.seq), str(len(slots)), self._queues,
            b"".join([SLOTS[slot] for slot in slots]), self._body, str(asleep),
            str(self.handed if self._offers else -1), *outcomes,
        )  # fmt: skip
        self._transmit(lane)

    def _transmit(self, lane: Lane) -> None:
        channel = self._channel
        if channel is not None and not channel.closed and lane.packed is not None:
            lane.sent_at = time.monotonic()
            seq = lane.seq
            channel.send(lane.packed, lambda reply: self._answered(lane, seq, reply))

    def _answered(self, lane: Lane, seq: int, reply: Any) -> None:
        if lane.packed is None or lane.seq != seq:
            return
        if isinstance(reply, hiredis.ReplyError):
            self._refused(lane, str(reply))
            return
        code = reply[0]
        if code == Reply.OK:
            lane.packed, self._epoch_trouble, self._refusals = None, None, None
            self.asleep = min(reply[3], 1)
            missed = Handover.parse(reply[6]) if len(reply) > 6 else None
            self._on_answer(self, lane, TurnAnswer(reply[1], reply[2], reply[4], reply[5], reply[3] == 2, missed))
        elif code == Reply.OLD_TURN:
            self._on_fatal(RedisflowError("another process speaks as this worker: worker ids must be unique"))
        elif code == Reply.EPOCH:
            self._epoch_trouble = self._epoch_trouble or Backoff(self.backend.settings.retry_deadline)
            if self._epoch_trouble.over:
                self._on_fatal(NamespaceLost("the namespace is gone: the server was flushed or replaced"))
            else:
                self._again(lane, self._epoch_trouble.next())
        else:
            log.error("partition %s: %s; repeating the turn", self._keys.prefix, Reply(code).name)
            self._again(lane, 1.0)

    def _refused(self, lane: Lane, message: str) -> None:
        if lacks_function(message):
            assert self._channel is not None
            load = pack_command("FUNCTION", "LOAD", "REPLACE", self._script.library.text)
            self._channel.send(load, self._loaded)
            if self._unloadable:
                self._again(lane, 0.5)
            else:  # right behind, so that nobody's FUNCTION FLUSH comes in between
                self._transmit(lane)
        elif message.startswith(("MOVED", "CLUSTERDOWN", "READONLY")):
            if self._refusals is None:
                log.warning("turn: %s; connecting anew", message)
                self._refusals = Backoff(10**18)
            self._drop()
        else:
            log.warning("turn: %s; repeating it", self._script.library.locate(message))
            self._again(lane, 0.5)

    def _loaded(self, reply: Any) -> None:
        self._unloadable = isinstance(reply, hiredis.ReplyError)
        if self._unloadable:
            log.warning("the functions cannot be loaded: %s; trying again", reply)

    def _again(self, lane: Lane, pause: float) -> None:
        if not self._closed:
            self.repeats += 1
            asyncio.get_running_loop().call_later(pause, self._transmit, lane)

    def follow(self) -> None:
        """Connect anew where the partition is known to lie on another node than the one that is connected."""
        if self._channel is not None and self.backend.server.locate(self._keys.meta) != self._address:
            self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._reconnect()

    def _reconnect(self) -> None:
        if not self._closed and (self._connecting is None or self._connecting.done()):
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        backoff = Backoff(10**18)
        told = False
        if self._refusals is not None:
            await asyncio.sleep(self._refusals.next())
        while True:
            try:
                await self.backend.server.refresh_topology()
                address = await self.backend.server.address_of(self._keys.meta)
                self._channel = await open_channel(address, self._on_lost)
                break
            except FAULTS as error:
                if not told:
                    log.warning("no connection to Redis: %s; trying again", error)
                    told = True
                await asyncio.sleep(backoff.next())
        if told:
            log.info("connected to Redis again")
        if self._address not in (None, address):
            self.backend.listener.mend()  # a frozen node never says that its subscriptions have ended
        self._address = address
        for lane in self.lanes:
            self.repeats += lane.packed is not None
            self._transmit(lane)

    def _on_lost(self, error: Exception | None) -> None:
        log.warning("connection to Redis lost%s; turns under way will be repeated", f" ({error})" if error else "")
        self._reconnect()

    def _watchdog(self) -> None:
        """A half-open connection never says so: after a silence it is dropped, and its turns are repeated on a new one."""
        now = time.monotonic()
        if any(lane.packed is not None and now - lane.sent_at > SILENT for lane in self.lanes) and (
            self._connecting is None or self._connecting.done()
        ):
            log.warning("no answer from Redis for %.0f s; connecting anew", SILENT)
            self._drop()
        if not self._closed:
            self._watch = asyncio.get_running_loop().call_later(SILENT / 2, self._watchdog)


async def follow_partitions(links: Sequence[TurnLink]) -> None:
    """Learn where the partitions lie now, and let each line go there: a frozen primary never says that another took its place."""
    try:
        await links[0].backend.server.refresh_topology()
        for link in links:
            link.follow()
    except (*FAULTS, RedisflowError) as error:
        log.debug("the layout is not known: %s", error)
