"""`doctor`: is this server fit to keep workflows, and does somebody look after them?

`backend/redis/inspect.py` gathers the facts; each check here is a small function of them that gives a line:
ok, warn (it works, but something can be lost or wasted) or fail (it does not work), and the fix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

import click

from redisflow.backend.location import redact
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.inspect import Facts, gather_facts, workers
from redisflow.cli.options import (
    PATIENCE,
    Options,
    json_option,
    pass_options,
    run_async,
    server_options,
    start_embedded,
)
from redisflow.cli.text import console, now_us, print_json, status_text, table
from redisflow.model.errors import ServerUnavailable
from redisflow.settings import Settings, format_duration, parse_duration

CLOCK_WARN_US = 1_000_000
NODE_BYTES = 1024
LISTED_MEMBERS = 16


@dataclass(frozen=True)
class Check:
    """One line of the answer."""

    name: str
    verdict: Literal["ok", "warn", "fail"]
    finding: str
    fix: str = ""


@click.command()
@json_option
@server_options
@pass_options
def doctor(options: Options, as_json: bool) -> None:
    """Check the server and its settings. Exits with 1 where something fails."""
    checks = run_async(_doctor(options))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        rows = [(check.name, status_text(check.verdict), check.finding, check.fix) for check in checks]
        console().print(table(("check", "", "finding", "fix"), rows))
    if any(check.verdict == "fail" for check in checks):
        raise click.exceptions.Exit(1)


async def _doctor(options: Options) -> list[Check]:
    settings = options.settings()
    embedded = None
    try:
        if settings.url is None:
            if not settings.home.is_dir():
                return [
                    Check("server", "fail", "no URL is set, and no embedded server has run in this folder",
                          "set REDISFLOW_URL, or start one with `redisflow dev`")
                ]  # fmt: skip
            embedded = await start_embedded(settings)
            settings = settings.model_copy(update={"url": embedded.url})
        return await _examine(settings)
    except ServerUnavailable as error:
        return [Check("server", "fail", str(error), "start it, or correct --url / REDISFLOW_URL")]
    finally:
        if embedded is not None:
            embedded.close()


async def _examine(settings: Settings) -> list[Check]:
    patience = parse_duration(PATIENCE)
    backend = RedisBackend(settings.model_copy(update={"retry_deadline": patience}))
    try:
        facts = await gather_facts(backend, patience)
        checks = [check(facts) for check in CHECKS]
        if facts.unsuitable is None:
            checks.append(reclaimer_check(facts, settings))
            checks.append(_workers_check(await workers(backend, settings.stale_after)))
        return [_server(facts, settings), *checks]
    finally:
        await backend.close()


def _server(facts: Facts, settings: Settings) -> Check:
    info = facts.info
    kind = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "?")
    found = f"{kind} {version} at {redact(settings.url or '')}, namespace {settings.namespace}"
    if facts.unsuitable is not None:
        return Check("server", "fail", found, facts.unsuitable)
    return Check("server", "ok", f"{found}, answers in {format_duration(facts.round_trip_us)}")


def eviction(facts: Facts) -> Check:
    """A server that evicts keys loses runs."""
    policy = str(facts.info.get("maxmemory_policy", "noeviction"))
    if policy == "noeviction":
        return Check("eviction", "ok", policy)
    return Check("eviction", "fail", f"{policy}: runs may vanish", "CONFIG SET maxmemory-policy noeviction")


def persistence(facts: Facts) -> Check:
    """What a crash of the server loses of what it has acknowledged."""
    if not int(facts.info.get("aof_enabled", 0)):
        return Check(
            "persistence", "warn", "no AOF: a crash loses all since the last snapshot",
            "CONFIG SET appendonly yes (and in the server's configuration)",
        )  # fmt: skip
    if facts.info.get("aof_last_write_status", "ok") != "ok":
        return Check("persistence", "fail", "the last write to the AOF failed", "free disk space")
    fsync = facts.config.get("appendfsync")
    losses = {"always": ": a crash loses nothing", "everysec": ": a power failure loses the last second or two"}
    if fsync == "no":
        return Check(
            "persistence", "warn", "AOF, appendfsync no: a power failure loses up to 30 s",
            "CONFIG SET appendfsync everysec",
        )  # fmt: skip
    found = f"AOF, appendfsync {fsync or 'unknown'}{losses.get(fsync or '', '')}"
    return Check("persistence", "ok", found)


def stream_nodes(facts: Facts) -> Check:
    """Small stream nodes halve what a run takes."""
    size = facts.config.get("stream-node-max-bytes")
    if size is None:
        return Check("stream nodes", "warn", "unknown: CONFIG GET is refused", "stream-node-max-bytes 1024")
    if 0 < int(size) <= NODE_BYTES:
        return Check("stream nodes", "ok", f"stream-node-max-bytes {size}")
    return Check(
        "stream nodes", "warn", f"stream-node-max-bytes {size}: a run takes about twice the memory",
        f"CONFIG SET stream-node-max-bytes {NODE_BYTES}",
    )  # fmt: skip


def sorted_sets(facts: Facts) -> Check:
    """A sorted set kept as a list is walked at every write: a twentieth of what the server does for a step."""
    limit = facts.config.get("zset-max-listpack-entries")
    if limit is None:
        return Check("sorted sets", "warn", "unknown: CONFIG GET is refused", "zset-max-listpack-entries 0")
    if int(limit) <= LISTED_MEMBERS:
        return Check("sorted sets", "ok", f"zset-max-listpack-entries {limit}")
    return Check(
        "sorted sets", "warn", f"zset-max-listpack-entries {limit}: small indexes are slower to write",
        "CONFIG SET zset-max-listpack-entries 0",
    )  # fmt: skip


def clock_difference(facts: Facts) -> Check:
    """Absolute times that a client gives are by its own clock."""
    if facts.unsuitable is not None:
        return Check("clock", "warn", "not compared")
    side = "ahead of" if facts.clock_us > 0 else "behind"
    found = f"{format_duration(abs(facts.clock_us))} {side} this machine"
    if abs(facts.clock_us) - facts.round_trip_us <= CLOCK_WARN_US:
        return Check("clock", "ok", found)
    return Check("clock", "warn", found, "run NTP on both: a time given as `at` is off by that much")


def skew(facts: Facts) -> Check:
    """What scripts add to the server's clock since it went backwards."""
    worst = max((abs(meta.get("skew", 0)) for meta in facts.meta), default=0)
    if not worst:
        return Check("skew", "ok", "the server's clock has never gone backwards")
    return Check(
        "skew", "warn", f"the clock went back by {format_duration(worst)} once; times go on from before",
        "run NTP on every node",
    )  # fmt: skip


def scripts(facts: Facts) -> Check:
    """Every transition is a script."""
    if facts.script_error:
        return Check("scripts", "fail", facts.script_error, "allow FUNCTION and FCALL in the ACL")
    return Check("scripts", "ok" if facts.scripts else "warn", f"{facts.scripts} load")


def cluster(facts: Facts) -> Check:
    """On a Cluster every slot must be served."""
    if facts.cluster is None:
        return Check("cluster", "ok", "standalone")
    state = str(facts.cluster.get("cluster_state", "unknown"))
    slots = facts.cluster.get("cluster_slots_ok", "?")
    found = f"state {state}, {slots} slots ok, {facts.cluster.get('cluster_size', '?')} primaries"
    if state == "ok":
        return Check("cluster", "ok", found)
    return Check("cluster", "fail", found, "redis-cli --cluster fix")


CHECKS: Final[tuple[Callable[[Facts], Check], ...]] = (
    eviction, persistence, stream_nodes, sorted_sets, clock_difference, skew, scripts, cluster,
)  # fmt: skip


def reclaimer_check(facts: Facts, settings: Settings) -> Check:
    """Without a reclaimer nobody takes steps back from dead workers."""
    fix = "run `redisflow reclaimer`; it takes steps back from dead workers"
    ticks = [meta["tick"] for meta in facts.meta if "tick" in meta]
    if len(ticks) < len(facts.meta) or not ticks:
        return Check("reclaimer", "warn", "none has run yet", fix)
    age = max(0, now_us() + facts.clock_us - min(ticks))
    found = f"last round {format_duration(age)} ago"
    if age <= max(5 * settings.reclaim_interval, 5_000_000):
        return Check("reclaimer", "ok", found)
    return Check("reclaimer", "warn", found, fix)


def _workers_check(found: list[dict[str, Any]]) -> Check:
    if not found:
        return Check("workers", "warn", "none is alive", "run `redisflow worker MODULE_OR_FILE`")
    slots = sum(int(worker.get("concurrency", 0)) for worker in found)
    running = sum(int(worker["running"]) for worker in found)
    return Check("workers", "ok", f"{len(found)} alive, {slots} slots, {running} steps running")
