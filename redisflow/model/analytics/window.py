"""Which events are counted, and what a counter is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Protocol, TypeVar

from redisflow.model.events import BaseEvent, BaseStepEvent


class Window(NamedTuple):
    """Which events are counted: those in [start, end] (µs, inclusive) that fit all filters given.

    With a `step_id` only step events fit, so the figures of runs are 0.
    """

    start_us: int
    end_us: int
    workflow_slug: str | None = None
    step_id: str | None = None
    run_ids: frozenset[str] | None = None

    def spans(self, timestamp_us: int) -> bool:
        """Whether the time lies in the window."""
        return self.start_us <= timestamp_us <= self.end_us

    def holds(self, event: BaseEvent) -> bool:
        """Whether the event is counted."""
        return (
            self.spans(event.timestamp_us)
            and (self.workflow_slug is None or event.workflow_slug == self.workflow_slug)
            and (self.run_ids is None or event.run_id in self.run_ids)
            and (self.step_id is None or (isinstance(event, BaseStepEvent) and event.step_id == self.step_id))
        )


EventTypes = tuple[type[BaseEvent], ...]
"""Types of events, as `Counter.counted` names them."""


class Counter(Protocol):
    """What every counter has; `result` differs in its arguments.

    `counted` are the types of events that matter to it: who reads events from afar need not decode others.
    """

    counted: ClassVar[EventTypes]

    def add(self, event: BaseEvent) -> None:
        """Count an event; those that do not matter are passed by."""


_C = TypeVar("_C", bound=Counter)


def feed(counter: _C, events: Iterable[BaseEvent]) -> _C:
    """Count events in order; returns the counter."""
    for event in events:
        counter.add(event)
    return counter


def counted_names(counter: Counter) -> frozenset[str]:
    """Names on the wire of the events that matter to a counter."""
    return frozenset(model.model_fields["type"].default for model in counter.counted)
