"""Entries of a run's stream, taken apart into events: the twin of lua/lib/stream.lua.

An entry holds all events of a transition, so none of them can be there without the others; those that a caller saves have an entry
each. For each event there is a field named by its type, whose value is its step, NUL, its envelope and, where it has one, its
payload. The first event has the entry's id, those behind it the ids that follow. Readers ask the client for entries and get events:
`share_events` sees to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from redisflow.codec import PAYLOADS

Event = tuple[bytes, dict[bytes, bytes]]
"""Stream id, and `type`, `step`, `data` (the packed envelope) and `payload`."""
_WITH_PAYLOAD = frozenset(kind.encode() for kind in PAYLOADS)


def share_events(client: Any) -> None:
    """Let a client of the library answer XRANGE, XREVRANGE and XREAD with events."""
    client.set_response_callback("XRANGE", _ascending)
    client.set_response_callback("XREVRANGE", _descending)
    client.set_response_callback("XREAD", _by_stream)


def order(stream_id: str) -> tuple[int, int]:
    """A stream id as something to compare.

    Raises:
        ValueError: it is none.
    """
    first, _, second = stream_id.partition("-")
    return int(first), int(second or 0)


def entry_of(stream_id: str) -> dict[str, Any]:
    """What XREVRANGE is asked for the entry that holds an event: the last that does not begin after it."""
    return {"max": stream_id, "count": 1}


def event_with_id(events: Iterable[Event], stream_id: str) -> dict[bytes, bytes] | None:
    """The event with an id among those of its entry."""
    wanted = stream_id.encode()
    return next((event for found, event in events if found == wanted), None)


def before(stream_id: str) -> str:
    """The id from which XREAD finds every entry that may hold an event after another one, the other's entry included."""
    first, _ = order(stream_id)
    return f"{first - 1}-{2**64 - 1}" if first else "0"


def _events_of(stream_id: bytes, fields: Sequence[bytes]) -> list[Event]:
    first, _, second = stream_id.partition(b"-")
    number, found = int(second), []
    for place in range(0, len(fields), 2):
        kind, value = fields[place], fields[place + 1]
        step, _, data = value.partition(b"\0")
        payload = b""
        if kind in _WITH_PAYLOAD:
            try:
                msgpack.unpackb(data, raw=True, strict_map_key=False)
            except msgpack.ExtraData as more:
                payload = more.extra
                data = data[: -len(payload)]
            except (ValueError, TypeError, msgpack.UnpackException):
                pass  # no envelope of ours: whoever decodes it tells
        found.append((b"%b-%d" % (first, number), {b"type": kind, b"step": step, b"data": data, b"payload": payload}))
        number += 1
    return found


def _ascending(entries: Any, **_: Any) -> list[Event] | None:
    return None if entries is None else [event for entry in entries for event in _events_of(*entry)]


def _descending(entries: Any, **_: Any) -> list[Event] | None:
    return None if entries is None else [event for entry in entries for event in reversed(_events_of(*entry))]


def _by_stream(reply: Any, **_: Any) -> list[tuple[bytes, list[Event]]]:
    pairs = reply.items() if isinstance(reply, dict) else reply or ()
    return [(key, _ascending(entries) or []) for key, entries in pairs]
