"""Each rule of histories: some that keep it, and some that break it. All other tests hold the engine to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from redisflow.model.derived import Entry, StepPlan
from redisflow.model.invariants import RULES, check_history, is_told

PLAN = {
    "a": StepPlan({}, "q", attempts=2, crashes=1),
    "b": StepPlan({"a": "r"}, "q"),
    "c": StepPlan({"b": "r"}, "q"),
}
History = list[Entry]


def e(type_: str, step: str = "", payload: str = "", **fields: Any) -> Entry:
    return Entry("0-0", type_, step, fields, payload)


def numbered(events: History) -> History:
    """The events at 1000, 1001, …; an end's duration is filled in."""
    found = []
    for at, event in enumerate(events, 1000):
        fields = dict(event.fields)
        if event.type in ("WorkflowCompleted", "WorkflowFailed", "WorkflowCancelled"):
            fields.setdefault("d", at - 1000)
        found.append(replace(event, stream_id=f"{at}-0", fields=fields))
    return found


def ran(step: str, attempt: int = 1, reason: str = "i") -> History:
    return [e("StepScheduled", step, a=attempt, r=reason), e("StepStarted", step, a=attempt)]


def completed(step: str, attempt: int = 1, **fields: Any) -> Entry:
    return e("StepCompleted", step, "1", a=attempt, d=1, **fields)


def failed(step: str, attempt: int, terminal: bool, why: str = "execution-error") -> Entry:
    return e("StepFailed", step, a=attempt, t=terminal, f=why)


def start(w: int = 1) -> Entry:
    return e("WorkflowStarted", w=w)


SUBMITTED = e("RunSubmitted", pl=1)
FIRST = [SUBMITTED, e("StepScheduled", "a", a=1, r="i"), start(), e("StepStarted", "a", a=1)]
LOG = e("LogEntry", "a", a=1, m="late")
FAILED_FOR_GOOD = [
    *FIRST, failed("a", 1, False), e("StepRetrying", "a", a=1, na=2), *ran("a", 2, "r"), failed("a", 2, True),
    e("WorkflowFailed", w=1, c=0, f="step-failed", s="a"),
]  # fmt: skip
RETRIED = [
    *FAILED_FOR_GOOD, LOG, e("WorkflowRetryStarted", w=2, pw=1, rt=["a"]), e("StepScheduled", "a", a=3, r="r"), start(2),
    e("StepStarted", "a", a=3), completed("a", 3, x=True), *ran("b"), e("StepSkipped", "b", a=1, k="primary", d=1),
    e("StepSkipped", "c", a=1, k="cascade", cf="b", d=0), e("WorkflowCompleted", payload='{"a": 1}', w=2, n=3),
]  # fmt: skip
CRASHED = [
    *FIRST, e("StepHeartbeat", "a", a=1), e("StepCheckpoint", "a", a=1), e("StepReclaimed", "a", a=1), *ran("a", 2, "r"),
    e("StepReclaimed", "a", a=2), failed("a", 2, True, "worker-crash"),
    e("WorkflowFailed", w=1, c=0, f="worker-crash", s="a"),
]  # fmt: skip
RELEASED = [*FIRST, *ran("a", 1, "r"), *ran("a", 1, "r"), completed("a"), *ran("b"), e("WorkflowCancelled", w=1, c=1)]
KEPT = [
    SUBMITTED, e("WorkflowRerunFromStep"), e("StepScheduled", "a", a=2, ts=5), e("StepStarted", "a", a=2, ts=6),
    completed("a", 2, ts=7), e("StepScheduled", "b", a=1, r="d"), start(), e("StepStarted", "b", a=1), completed("b"), *ran("c"),
    completed("c"), e("WorkflowCompleted", w=1, n=3),
]  # fmt: skip
GOOD = {"retried": RETRIED, "crashed": CRASHED, "released": RELEASED, "kept": KEPT, "running": FIRST}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_breaks_no_rule(name: str) -> None:
    assert check_history("r", numbered(GOOD[name]), PLAN) == []


@pytest.mark.parametrize("name", GOOD)
def test_so_does_every_beginning_that_a_call_may_leave(name: str) -> None:
    """Any prefix breaks at most the rule that what must follow at once does."""
    history = numbered(GOOD[name])
    for length in range(1, len(history)):
        assert {violation.rule for violation in check_history("r", history[:length], PLAN)} <= {"attempts"}


def cut(history: History, *indexes: int) -> History:
    return [event for index, event in enumerate(history) if index not in {i % len(history) for i in indexes}]


def put(history: History, index: int, *events: Entry) -> History:
    return [*history[:index], *events, *history[index:]]


def changed(history: History, index: int, **fields: Any) -> History:
    event = history[index]
    return [*history[:index], replace(event, fields={**event.fields, **fields}), *history[index:][1:]]


END = len(FAILED_FOR_GOOD) - 1
BROKEN: list[tuple[str, History]] = [
    ("submitted", cut(FIRST, 0)),
    ("submitted", put(FIRST, 2, SUBMITTED)),
    ("one-end", [*FAILED_FOR_GOOD, FAILED_FOR_GOOD[-1]]),
    ("one-end", [*RETRIED, e("WorkflowCancelled", w=2, c=1)]),
    ("one-end", put(RETRIED, END + 1, e("StepScheduled", "a", a=3, r="r"))),
    ("one-end", [*RETRIED, e("StepHeartbeat", "a", a=3)]),
    ("workflow-attempts", cut(FIRST, 2)),
    ("workflow-attempts", put(FIRST, 3, start())),
    ("workflow-attempts", changed(FIRST, 2, w=2)),
    ("workflow-attempts", [*RELEASED, e("WorkflowRetryStarted", w=2, pw=1, rt=[])]),
    ("workflow-attempts", [*FIRST, e("WorkflowRetryStarted", w=2, pw=1, rt=["a"]), e("StepScheduled", "a", a=2)]),
    ("workflow-attempts", changed(RETRIED, END + 2, w=3)),
    ("workflow-attempts", changed(FAILED_FOR_GOOD, END, w=2)),
    ("attempts", changed(FIRST, 1, a=2)),
    ("attempts", [*FIRST, failed("a", 1, False), e("StepRetrying", "a", a=1, na=2)]),
    ("attempts", [*FIRST, e("StepReclaimed", "a", a=1)]),
    ("attempts", [*FIRST, *ran("a", 2, "r")]),
    ("attempts", [*FIRST, failed("a", 1, False), *ran("a", 1, "r")]),
    ("attempts", RETRIED[: END + 3]),
    ("order", cut(FIRST, 1)),
    ("order", put(FIRST, 2, e("StepScheduled", "a", a=1, r="r"))),
    ("order", [*FIRST, e("StepStarted", "a", a=1)]),
    ("order", [*FIRST, completed("a"), e("StepScheduled", "a", a=2, r="r")]),
    ("order", [*FIRST, failed("a", 1, True), e("StepScheduled", "a", a=2, r="r")]),
    ("order", [*FIRST, e("StepRetrying", "a", a=1, na=2)]),
    ("order", changed(FIRST, 1, v=5000)),
    ("order", changed(FIRST, 1, dl=100)),
    ("fence", [*FIRST, completed("a"), completed("a")]),
    ("fence", [*FIRST[:2], completed("a")]),
    ("fence", [*FIRST, e("StepReclaimed", "a", a=1), *ran("a", 2, "r"), completed("a", 1)]),
    ("fence", [*FIRST, e("StepScheduled", "a", a=1, r="r"), completed("a")]),
    ("fence", [*FIRST, e("StepReclaimed", "a", a=1), *ran("a", 2, "r"), failed("a", 1, False)]),
    ("fence", [*FIRST, completed("a"), e("StepReclaimed", "a", a=1)]),
    ("fence", [*FIRST, completed("a"), e("StepSkipped", "a", a=1, k="primary")]),
    ("fence", [*FIRST, e("StepScheduled", "a", a=1, r="r"), e("StepHeartbeat", "a", a=1)]),
    ("fence", [*FIRST, completed("a"), e("StepCheckpoint", "a", a=1)]),
    ("fence", [*FIRST, failed("a", 1, True, "worker-crash")]),
    ("budget", [*FAILED_FOR_GOOD[:8], failed("a", 2, False), *ran("a", 3, "r")]),
    ("budget", [*CRASHED[:8], e("StepReclaimed", "a", a=2), *ran("a", 3, "r")]),
    ("budget", [*FIRST, e("StepReclaimed", "a", a=1), failed("a", 1, True, "worker-crash")]),
    ("dependencies", [*FIRST, e("StepScheduled", "b", a=1, r="d")]),
    ("dependencies", [*FIRST, e("StepSkipped", "a", a=1, k="primary"), e("StepScheduled", "b", a=1, r="d")]),
    ("dependencies", [*FIRST, completed("a"), e("StepSkipped", "b", a=1, k="cascade", cf="a")]),
    (
        "dependencies",
        [*FIRST, e("StepSkipped", "a", a=1, k="primary"), e("StepSkipped", "c", a=1, k="cascade", cf="a")],
    ),
    ("ending", [*FIRST, completed("a"), e("WorkflowCompleted", w=1, n=3)]),
    ("ending", [*FIRST, e("WorkflowFailed", w=1, c=0, f="step-failed", s="a")]),
    ("ending", changed(FAILED_FOR_GOOD, END, s="b")),
    ("ending", changed(CRASHED, len(CRASHED) - 1, f="step-failed")),
    ("counters", changed(RETRIED, len(RETRIED) - 1, n=2)),
    ("counters", changed(RETRIED, len(RETRIED) - 1, d=1)),
    ("counters", changed(RELEASED, len(RELEASED) - 1, c=2)),
    ("counters", [*RETRIED[:-1], replace(RETRIED[-1], payload='{"a": 2}')]),
]


@pytest.mark.parametrize(("rule", "history"), BROKEN, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(BROKEN)])
def test_a_history_that_breaks_a_rule(rule: str, history: History) -> None:
    found = check_history("r", numbered(history), PLAN)
    assert rule in {violation.rule for violation in found}, found
    assert all(violation.run_id == "r" and violation.event_ids and violation.message for violation in found)


def test_ids_that_do_not_rise() -> None:
    history = numbered(FIRST)
    history[2] = replace(history[2], stream_id="1000-1")
    (violation,) = check_history("r", history, PLAN)
    assert (violation.rule, violation.event_ids) == ("ids", ("1001",))


def test_every_rule_has_a_history_that_breaks_it() -> None:
    assert {rule for rule, _ in BROKEN} | {"ids"} == set(RULES)


@pytest.mark.parametrize(
    "found",
    [(e("StepStarted", "a", a=7, sv=1), True), (e("LogEntry", "a", sv=1), False), (e("StepStarted", "a", a=1), False)],
)
def test_only_a_saved_state_event_makes_a_history_a_tale(found: tuple[Entry, bool]) -> None:
    event, told = found
    assert is_told([*FIRST, event]) is told


@pytest.mark.parametrize("shape", [lambda h: [], lambda h: h[:1]])
def test_nothing_is_asked_of_what_has_hardly_begun(shape: Callable[[History], History]) -> None:
    assert check_history("r", numbered(shape(FIRST)), PLAN) == []


def test_the_docs_list_the_rules_in_the_same_words() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    for rule, words in RULES.items():
        assert f"| `{rule}` | {words} |" in page
