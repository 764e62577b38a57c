"""Every key of redisflow, each a small documented function.

A run and all that its transitions touch share one hash tag `{ns:p}`, so that one script serves them on a Cluster too; `p` is the
partition, `crc32(route) mod P`, where the route is the run id up to its first dot. Each docstring gives the type, the kind and an
example. Kinds: **fold** follows from the streams (`redisflow verify` checks it), **lease** and **cache** have a TTL or an owner
that clears them, **registry** is written on registration.
"""

from __future__ import annotations

import hashlib
import os
import re
from zlib import crc32

from redisflow.model.errors import InvalidArgument
from redisflow.model.workflow import SLUG, STEP_ID

_RUN_ID = re.compile(r"[A-Za-z0-9_.-]{1,200}")
_STEP_ID, _SLUG = re.compile(STEP_ID), re.compile(SLUG)
_BASE32 = b"abcdefghijklmnopqrstuvwxyz234567" * 8  # by byte: a translation that leaves random bytes evenly spread
RUNNING_ANCHOR = "~" * 65
"""A member of every `running` set that never leaves, at infinity. A sorted set with a member over 64 bytes is a skip list from the
start; as a listpack it is searched from end to end by each ZADD, which cost 9 % of a step while fewer than 128 steps ran."""


def check_run_id(run_id: str, argument: str = "run_id") -> str:
    """The run id itself.

    Raises:
        InvalidArgument: it is not 1 to 200 characters of `A-Z a-z 0-9 _ . -`.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):
        raise InvalidArgument(argument, run_id, "1 to 200 characters of A-Z a-z 0-9 _ . -")
    return run_id


def check_step_id(step_id: str, argument: str = "step_id") -> str:
    """The step id itself; nested ids have up to 8 segments joined by `/`.

    Raises:
        InvalidArgument: a segment is not 1 to 100 characters of `A-Z a-z 0-9 _ . -`.
    """
    if not isinstance(step_id, str) or not _STEP_ID.fullmatch(step_id):
        allowed = "1 to 8 segments of 1 to 100 characters of A-Z a-z 0-9 _ . -, joined by /"
        raise InvalidArgument(argument, step_id, allowed)
    return step_id


def check_slug(slug: str, argument: str = "workflow_slug") -> str:
    """The slug itself.

    Raises:
        InvalidArgument: it is not 1 to 64 characters of `A-Z a-z 0-9 _ . -`.
    """
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise InvalidArgument(argument, slug, "1 to 64 characters of A-Z a-z 0-9 _ . -")
    return slug


def new_run_id(route: str | None = None) -> str:
    """A fresh run id `<route>.<random>`, 60 random bits behind the dot; without a route, anywhere."""
    text = os.urandom(17).translate(_BASE32).decode()
    return f"{route or text[:5]}.{text[5:]}"


def key_hash(idempotency_key: str) -> str:
    """SHA-256 (hex) under which an idempotency key is kept."""
    return hashlib.sha256(idempotency_key.encode("utf-8", "surrogatepass")).hexdigest()


def route_of_key(hashed: str) -> str:
    """Route of a run submitted with an idempotency key: so the key's record and its run share a partition."""
    return hashed[:10]


def partition_of(run_id: str, partitions: int) -> int:
    """Partition of a run: CRC-32 of its route (the id up to its first dot) modulo the number of partitions."""
    return crc32(run_id.partition(".")[0].encode()) % partitions


class Keys:
    """Keys of one partition of a namespace.

    Args:
        namespace: prefix of all keys.
        suffix: what stands behind the colon in the hash tag; chosen at creation so that slots lie evenly over the nodes.
    """

    __slots__ = ("meta", "never", "prefix")

    def __init__(self, namespace: str, suffix: str) -> None:
        self.prefix = f"{{{namespace}:{suffix}}}:"
        self.meta = self.prefix + "meta"
        """Hash, registry: epoch, schema, clock, skew, the reclaimer's last tick. `{redisflow:0}:meta`."""
        self.never = self.prefix + "never"
        """Never exists: declared by every script, so that a migrating slot answers TRYAGAIN. `{redisflow:0}:never`."""

    def run(self, run_id: str) -> str:
        """Hash, fold: a run's header, steps, outputs and input. `{redisflow:0}:run:k3x9a.81hd`."""
        return f"{self.prefix}run:{run_id}"

    def events(self, run_id: str) -> str:
        """Stream, the truth: a run's events. `{redisflow:0}:run:k3x9a.81hd:events`."""
        return f"{self.prefix}run:{run_id}:events"

    def scheduled(self, queue: str, level: int) -> str:
        """Sorted set, fold: scheduled steps of a queue's priority level by `availableAt`. `{redisflow:0}:scheduled:checkout:0`."""
        return f"{self.prefix}scheduled:{queue}:{level}"

    @property
    def levels(self) -> str:
        """Sorted set, fold: `<queue>:<level>` by the least `availableAt` of that set. `{redisflow:0}:levels`."""
        return self.prefix + "levels"

    @property
    def running(self) -> str:
        """Sorted set; members fold, scores lease (last heartbeat): running steps. `{redisflow:0}:running`."""
        return self.prefix + "running"

    @property
    def deadlines(self) -> str:
        """Sorted set, fold: `run:<id>` by the time at which it times out. `{redisflow:0}:deadlines`."""
        return self.prefix + "deadlines"

    def index(self, slug: str, status: str) -> str:
        """Sorted set, fold: runs of a workflow in a status by createdAt. `{redisflow:0}:runs:checkout:failed`."""
        return f"{self.prefix}runs:{slug}:{status}"

    def tag(self, slug: str, tag: str) -> str:
        """Sorted set, fold: runs of a workflow with a tag by createdAt. `{redisflow:0}:runs:checkout:tag:eu`."""
        return f"{self.prefix}runs:{slug}:tag:{tag}"

    @property
    def ended(self) -> str:
        """Sorted set, fold: terminal runs by the time of their end. `{redisflow:0}:ended`."""
        return self.prefix + "ended"

    @property
    def strays(self) -> str:
        """Sorted set, fold: runs with a saved event later than their end, by the latest such time; figures of a window look at them
        too. One that was retried since may still be there. `{redisflow:0}:strays`."""
        return self.prefix + "strays"

    @property
    def failures(self) -> str:
        """Sorted set, fold: `<run>|<stream id>` of every StepFailed by its time. `{redisflow:0}:failures`."""
        return self.prefix + "failures"

    @property
    def expand(self) -> str:
        """Sorted set; members fold, scores progress: runs with work too large for one call. `{redisflow:0}:expand`."""
        return self.prefix + "expand"

    @property
    def plans(self) -> str:
        """Hash, registry: version to plan number. `{redisflow:0}:plans`."""
        return self.prefix + "plans"

    def plan(self, number: int) -> str:
        """Hash, registry: a compiled plan, a field a step. `{redisflow:0}:plan:3`."""
        return f"{self.prefix}plan:{number}"

    def worker(self, worker: str) -> str:
        """Hash, cache (a day): a worker's lanes, its offer, what it says of itself. `{redisflow:0}:worker:host-71.9f3a`."""
        return f"{self.prefix}worker:{worker}"

    @property
    def workers(self) -> str:
        """Sorted set, cache (swept): workers by last seen. `{redisflow:0}:workers`."""
        return self.prefix + "workers"

    def idempotency(self, hashed: str) -> str:
        """String, fold: run id of an idempotency key. `{redisflow:0}:idempotency:9f86d0…`."""
        return f"{self.prefix}idempotency:{hashed}"

    def sleepers(self, queue: str) -> str:
        """Sorted set, cache (a minute): workers with nothing to do. `{redisflow:0}:sleepers:checkout`."""
        return f"{self.prefix}sleepers:{queue}"

    @property
    def waiters(self) -> str:
        """Sorted set, cache (a day): runs that someone waits for. `{redisflow:0}:waiters`."""
        return self.prefix + "waiters"

    def stats(self, minute: int) -> str:
        """Hash, cache (6 hours): what happened in a minute since the epoch. `{redisflow:0}:stats:29738162`."""
        return f"{self.prefix}stats:{minute}"

    def once(self, request: str) -> str:
        """String, cache (15 minutes): the reply of a call, for its repeats. `{redisflow:0}:once:5b1c…`.

        Also by the id of a run that was deleted so soon that its submit may still be repeated.
        """
        return f"{self.prefix}once:{request}"

    def wake_channel(self, worker: str) -> str:
        """Channel of a worker: `w` wakes it, `x<run>|<step>|<lease>` says that a run stopped. `{redisflow:0}:wake:host-71.9f3a`."""
        return f"{self.prefix}wake:{worker}"

    @property
    def done_channel(self) -> str:
        """Channel of ended runs that someone waits for. `{redisflow:0}:done`."""
        return self.prefix + "done"


def layout(namespace: str) -> str:
    """Hash, registry: partitions, suffixes, schema, epoch of a namespace. `{redisflow}:layout`."""
    return f"{{{namespace}}}:layout"


def workflows(namespace: str) -> str:
    """Hash, registry: slug to its registration, JSON. `{redisflow}:workflows`."""
    return f"{{{namespace}}}:workflows"


def versions(namespace: str, slug: str) -> str:
    """Hash, registry: version id to its record, JSON. `{redisflow}:versions:checkout`."""
    return f"{{{namespace}}}:versions:{slug}"


def saved_slugs(namespace: str) -> str:
    """Set, registry: slugs of runs that were saved, which need not be registered. `{redisflow}:saved`."""
    return f"{{{namespace}}}:saved"
