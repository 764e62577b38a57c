"""What Lua and Python both say is the same: replies, events, keys, commands, packed fields, retry delays."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from redisflow.backend import keys as k
from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis import header as header_fields
from redisflow.backend.replies import Reply
from redisflow.backend.scripts import Script, find_lua, load_scripts, parse_scripts
from redisflow.codec import pack
from redisflow.model.events import EVENT_TYPES
from redisflow.model.histogram import bucket_of
from redisflow.model.retry import RetryPolicy, RetryTier
from redisflow.model.states import VERBS, events_by

LUA = find_lua()
SOURCES = {str(path.relative_to(LUA)): path.read_text() for path in sorted(LUA.rglob("*.lua"))}
TRANSITIONS = sorted(set(VERBS) & set(load_scripts()))
TURN = ("claim", "complete", "fail", "skip", "release")


def test_replies_are_the_same_enum() -> None:
    found = re.findall(r"^local ([A-Z_]+) = (\d+)", (LUA / "lib/replies.lua").read_text(), re.MULTILINE)
    assert {name: int(number) for name, number in found} == {reply.name: reply.value for reply in Reply}


def test_the_scripts_of_the_table_are_there() -> None:
    assert set(TRANSITIONS) >= {
        "submit",
        "claim",
        "heartbeat",
        "complete",
        "fail",
        "skip",
        "release",
        "reclaim",
        "cancel",
        "sweep",
    }


@pytest.mark.parametrize("verb", TRANSITIONS)
def test_a_script_names_only_events_that_the_table_allows(verb: str) -> None:
    allowed = {*events_by(verb)}  # type: ignore[arg-type]
    if verb == "submit":  # which may claim for a worker that sleeps
        allowed |= {*events_by("claim")}
    assert set(load_scripts()[verb].events) <= allowed


@pytest.mark.parametrize("verb", TRANSITIONS)
def test_a_script_names_every_event_that_the_table_asks_for(verb: str) -> None:
    assert set(events_by(verb)) <= set(load_scripts()[verb].events)  # type: ignore[arg-type]


def test_a_turn_names_the_events_of_a_claim_and_of_every_outcome() -> None:
    expected = {event for verb in TURN for event in load_scripts()[verb].events}
    assert set(load_scripts()["turn"].events) == expected


def test_every_event_of_a_header_is_one_of_the_wire_form() -> None:
    for script in load_scripts().values():
        assert set(script.events) <= set(EVENT_TYPES), script.name


def test_every_key_of_a_script_is_one_of_the_key_module() -> None:
    known = set(re.findall(r"self\.prefix(?: \+ \"|\}?)([a-z]+)", inspect.getsource(k)))
    assert {"meta", "run", "scheduled", "running", "once", "wake"} <= known
    for file, text in SOURCES.items():
        for name in re.findall(r"\bprefix \.\. '([a-z]+)", text):
            assert name in known, f"lua/{file}: {name}"


def test_only_commit_and_a_few_named_files_write() -> None:
    """Phase 1 writes nothing: what writes is commit, and scripts that are one write or a hint after it."""
    writes = re.compile(
        r"call\('(XADD|XDEL|XSETID|RENAME|HSET|HDEL|ZADD|ZREM\w*|SET|DEL|UNLINK|EXPIRE|SADD|RPUSH|INCR\w*|HINCR\w*)'"
    )
    writers = {file for file, text in SOURCES.items() if writes.search(text)}
    assert writers <= {
        "lib/commit.lua",
        "lib/commit_light.lua",
        "register.lua",
        "reserve.lua",
        "forget.lua",
        "wait.lua",
        "turn.lua",
        "erase.lua",
    }


@pytest.mark.parametrize("file", SOURCES)
def test_nothing_unbounded(file: str) -> None:
    for command in ("KEYS", "SCAN", "SMEMBERS", "HGETALL", "FLUSHALL", "FLUSHDB"):
        assert f"'{command}'" not in SOURCES[file]


@pytest.mark.parametrize("file", SOURCES)
def test_no_event_is_taken_back(file: str) -> None:
    """A history is deleted as a whole, or by the one script that is there for it."""
    for command in ("XDEL", "XTRIM", "MAXLEN"):
        assert f"'{command}'" not in SOURCES[file] or file in ("delete.lua", "erase.lua")


def write_probe(folder: Path, title: str, text: str) -> Script:
    """A script of its own over the libraries."""
    shutil.copytree(LUA / "lib", folder / "lib")
    (folder / "probe.lua").write_text(f"#!lua\n-- probe: {title}\n-- KEYS meta hash\n-- KEYS never string\n{text}")
    return parse_scripts(folder, ["probe"])["probe"]


@pytest.fixture
def probe(tmp_path: Path) -> Script:
    """A script that answers what the libraries compute: `what`, then the packed arguments."""
    return write_probe(
        tmp_path,
        "what the libraries compute",
        "-- ARGV epoch string\n-- ARGV tiers_text string\n-- ARGV failures int\n-- ARGV draw string\n"
        "-- @include lib/open\n-- @include lib/outcome\n-- @include lib/commit\n"
        "local tiers = cmsgpack.unpack(tiers_text)\n"
        "local index = tier_of(tiers, failures)\n"
        "local next_index, within, tier = tier_of(tiers, failures + 1)\n"
        "local delay = retry_delay(tier, within, next_index == index, tonumber(draw))\n"
        "return { next_index - 1, within, format('%.0f', delay), total_attempts(tiers) }\n",
    )


TIERS = st.builds(
    RetryTier,
    attempts=st.integers(1, 6),
    delay_us=st.one_of(st.just(0), st.integers(1, 3_600_000_000)),
    factor=st.floats(1, 10),
    max_delay_us=st.integers(0, 30 * 86_400_000_000),
    jitter=st.one_of(st.just(0.0), st.floats(0, 1)),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tiers=st.lists(TIERS, min_size=1, max_size=4), failures=st.integers(1, 30), draw=st.integers(0, 999_999))
async def test_retry_delays_are_the_same(
    probe: Script, backend: RedisBackend, tiers: list[RetryTier], failures: int, draw: int
) -> None:
    policy = RetryPolicy(tiers=tuple(tiers))
    packed = pack([[t.attempts, t.delay_us, t.factor, t.max_delay_us, t.jitter] for t in tiers])  # type: ignore[arg-type]
    text = f"{draw / 1_000_000:.6f}"
    argv = probe.pack([], epoch=backend.epoch, tiers_text=packed, failures=failures, draw=text)
    index, within, delay, total = await backend.server.call_once(probe, backend.partitions[0], argv)
    assert (index, within) == policy.tier_of(failures)
    assert total == policy.max_attempts
    assert int(delay) == policy.delay_us(failures, float(text))


async def test_buckets_of_durations_are_the_same(tmp_path: Path, backend: RedisBackend) -> None:
    probe = write_probe(
        tmp_path,
        "buckets",
        "-- ARGV epoch string\n-- ARGV durations list\n-- @include lib/open\n-- @include lib/rollup\n"
        "local found = {}\nfor i = durations, #ARGV do\n  found[#found + 1] = bucket_of(tonumber(ARGV[i]))\nend\nreturn found\n",
    )
    durations = [*range(70), 1000, 12_345, 10**6, 3 * 10**9, 2**40 - 1, 2**52 - 1]
    argv = probe.pack(durations, epoch=backend.epoch)
    reply = await backend.server.call_once(probe, backend.partitions[0], argv)
    assert reply == [bucket_of(duration) for duration in durations]


def test_packed_fields_have_the_same_size_on_both_sides() -> None:
    """Lua's struct and Python's name the same bytes; tests/backend read the values."""
    text = (LUA / "lib/run.lua").read_text()
    for name, form in (("HEADER", header_fields._HEADER.format), ("STEP", header_fields._STEP.format)):
        found = re.search(rf"^local {name} = '([^']+)'", text, re.MULTILINE)
        assert found is not None
        assert found.group(1).replace("c16", "16s").replace("c1", "c") == form
