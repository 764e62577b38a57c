"""Decoders and ids against anything at all: they give a value or one of their own errors, and an id that is taken breaks no key."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from redisflow import Settings
from redisflow.backend import keys as k
from redisflow.backend.location import redact
from redisflow.backend.redis.header import MALFORMED, parse_header, parse_step
from redisflow.backend.redis.lines import read_histories
from redisflow.backend.types import Submission
from redisflow.cli.text import json_or_text, short, to_json
from redisflow.codec import MAX_DEPTH, decode_event, decode_payload, encode_payload, pack, unpack
from redisflow.model.errors import InvalidArgument, InvalidInput, RedisflowError
from redisflow.model.events import EVENT_TYPES, parse_event
from redisflow.model.text import UNSAFE, clean, clean_lines
from redisflow.settings import parse_duration
from tests.strategies import JSON, events

ANY = (
    st.text()
    | st.text(st.characters(min_codepoint=0, max_codepoint=0x9F))
    | st.from_regex(r"[A-Za-z0-9_.{}|:*\n/-]{0,30}")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY | st.binary(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY | st.integers(), inner, max_size=4),
    max_leaves=20,
)
LIMIT = 1_000_000


@given(ANY)
def test_an_id_that_is_taken_breaks_no_key_and_no_line(text: str) -> None:
    for check in (k.check_run_id, k.check_step_id, k.check_slug):
        try:
            taken = check(text)
        except InvalidArgument as error:
            assert "\n" not in str(error)
            continue
        assert taken == text
        assert re.fullmatch(r"[A-Za-z0-9_.\-/]+", taken)
        if check is not k.check_step_id:
            assert "/" not in taken
    keys = k.Keys("ns", "0")
    try:
        run_id = k.check_run_id(text)
    except InvalidArgument:
        return
    assert keys.run(run_id) == "{ns:0}:run:" + text  # one hash tag, and no separator of members in it
    assert "|" not in run_id


@given(ANY)
def test_a_namespace_that_is_taken_is_one_hash_tag(text: str) -> None:
    try:
        settings = Settings(url="redis://h", namespace=text)
    except ValueError:
        return
    assert not set(settings.namespace) & set("{}:|*?[]\\ \n\0")


@given(ANY, ANY, st.lists(ANY, max_size=3))
def test_a_submission_is_checked_before_anything_is_written(key: str, tag: str, tags: list[str]) -> None:
    submission = Submission(idempotency_key=key or None, tags=(tag, *tags))
    try:
        submission.check()
    except InvalidArgument as error:
        assert "\n" not in str(error)
        return
    for each in submission.tags:
        assert not UNSAFE.search(each)
    assert re.fullmatch("[0-9a-f]{64}", k.key_hash(key))


@given(st.binary(max_size=200))
@example(b"\x82\x00\x00\x90\x00")
def test_an_envelope_of_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ValueError, msgpack.exceptions.UnpackException):
        unpack(data)


@given(VALUES)
def test_whatever_is_packed_is_read_again(value: Any) -> None:
    try:
        packed = pack({"v": value})
    except (OverflowError, ValueError):
        return
    assert set(unpack(packed)) == {"v"}


@given(VALUES)
def test_a_payload_that_is_taken_is_read_again(value: Any) -> None:
    text = encode_payload(value)
    json.loads(json.dumps(decode_payload(text)))
    assert not re.search("[\x00-\x1f]", text)


@pytest.mark.parametrize("shape", [lambda v: [v], lambda v: {"a": v}, lambda v: [{"a": v}]])
def test_the_depth_that_is_taken_is_the_depth_that_is_read(shape: Any) -> None:
    value: Any = 1
    for _ in range(400):
        try:
            text = encode_payload(value)
        except ValueError as error:
            assert "nested over 200 deep" in str(error)
            break
        assert decode_payload(text) == value
        value = shape(value)
    else:
        pytest.fail("there is no end to it")
    assert text.count("[") + text.count("{") >= MAX_DEPTH - 1
    endless: Any = 1
    for _ in range(100_000):
        endless = shape(endless)
    with pytest.raises(ValueError, match="nested over 200 deep"):
        encode_payload(endless)


@given(st.text())
def test_many_brackets_in_text_are_no_depth(text: str) -> None:
    value = "[{" * 300 + text
    assert isinstance(decode_payload(encode_payload(value)), str)


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_a_payload_of_any_text(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_payload(text)


@given(st.one_of(st.binary(max_size=80), st.binary(min_size=31, max_size=31), st.binary(min_size=53, max_size=53)))
@example(b"pp" + b"\0" * 8 + b"\xff" * 43)
@example(b"p" + b"\0" * 13 + b"\x7f" + b"\xff" * 16)
def test_packed_fields_of_any_bytes(raw: bytes) -> None:
    for parse in (parse_header, parse_step):
        with contextlib.suppress(*MALFORMED):
            parse(raw)


@given(st.sampled_from(sorted(EVENT_TYPES)), st.text(max_size=5), VALUES, st.text(max_size=10))
def test_a_stream_entry_of_anything(kind: str, step: str, value: Any, payload: str) -> None:
    try:
        data = pack(value if isinstance(value, dict) else {"a": value})
    except (OverflowError, ValueError):
        return
    entry = {
        b"type": kind.encode(), b"step": step.encode("utf-8", "replace"), b"data": data,
        b"payload": payload.encode("utf-8", "replace"),
    }  # fmt: skip
    with contextlib.suppress(InvalidInput, ValueError, TypeError, KeyError):
        parse_event(decode_event("1-0", entry, "flow", "r", lambda _: "v"))


@given(JSON | st.dictionaries(st.text(max_size=8), JSON, max_size=6))
@example("\n")
def test_an_event_of_any_json(data: Any) -> None:
    try:
        parse_event(data if isinstance(data, dict) else {"type": data})
    except InvalidInput as error:
        assert "\n" not in str(error)


@given(st.lists(ANY | JSON.map(json.dumps) | events().map(lambda event: json.dumps(event.to_wire())), max_size=3))
def test_an_import_of_any_lines(lines: list[str]) -> None:
    try:
        read_histories([line.encode("utf-8", "replace") for line in lines], limit=LIMIT)
    except InvalidInput as error:
        assert str(error).startswith("line ")


def test_what_could_hold_no_event_is_not_even_decoded() -> None:
    deep = "[" * 9_000_000
    with pytest.raises(InvalidInput, match=r"line 1 is invalid: \$: has 9,000,000 characters"):
        read_histories([deep], limit=1024)
    with pytest.raises(InvalidInput, match="line 1"):
        read_histories([deep], limit=LIMIT)
    submitted = {
        "eventId": "1", "timestampUs": 1, "workflowSlug": "s", "runId": "r", "category": "workflow", "type": "RunSubmitted",
        "versionId": "v", "availableAtUs": 1, "priority": 0, "hasInputSchema": False, "input": json.dumps("x" * 2000),
    }  # fmt: skip
    with pytest.raises(InvalidInput, match=r"input: is over the limit of 1,024 bytes"):
        read_histories([json.dumps(submitted)], limit=1024)
    assert read_histories([json.dumps(submitted)], limit=4096).runs.keys() == {"r"}


@given(ANY)
def test_a_duration_of_any_text(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


@given(ANY)
def test_nothing_that_is_printed_acts_on_a_terminal(text: str) -> None:
    for shown in (clean(text), short(text), to_json({text: text}), clean_lines(text).replace("\n", "")):
        assert not UNSAFE.search(shown)
    assert json.loads(to_json({"v": text}))["v"] == text or re.search("[\ud800-\udfff]", text)
    json_or_text(text)


PASSWORD = st.text("abcXYZ0189-_~!$'()*+,;=%", min_size=6, max_size=20).map("Pw".__add__)


@given(
    PASSWORD,
    st.sampled_from(["redis", "rediss", "redis+cluster", "redis+sentinel", "unix"]),
    st.sampled_from(["", "app"]),
)
def test_a_password_is_never_shown(password: str, scheme: str, user: str) -> None:
    for url in (
        f"{scheme}://{user}:{password}@host:6379/0",
        f"{scheme}://host:6379/0?db=1&password={password.replace(';', '')}",
        f"{scheme}:///run/redis.sock?sentinel_Password={password.replace(';', '')}&x=1",
    ):
        assert password.replace(";", "") not in redact(url).replace("***", "")
        assert "***" in redact(url)
        assert password not in repr(Settings(url=url))


@given(ANY)
def test_any_url_can_be_redacted(text: str) -> None:
    redact(text)


def test_an_error_of_any_text_is_one_line() -> None:
    with pytest.raises(RedisflowError) as caught:
        k.check_run_id("a\nb\x1b[31m" * 100)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
