"""Tables for `test_bad_input.py`: a call of each method that works, and what each argument must not be.

`GOOD` has the arguments of the call by the name of the method, `WRONG` wrong values by the name of the argument, and `ELSEWHERE`
those of arguments that mean something else in one method. The calls are made for the runs `live`, `ended` and `failed` of `SHOP`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from redisflow.model.states import RunSubmission, StepDefinition, WorkflowRegistration, WorkflowVersion

SHOP = WorkflowRegistration(
    slug="shop", name="Shop",
    input_schema_json={"type": "object", "properties": {"cents": {"type": "integer"}}, "required": ["cents"]},
    steps=(
        StepDefinition(id="price", name="Price", dependencies=(), export_output=False),
        StepDefinition(id="charge", name="Charge", dependencies=("price",), export_output=True),
    ),
)  # fmt: skip

BIG = "x" * 5_000
CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)

RUN_IDS = ["", "a b", None, 5, "x" * 201, "a|b", "a/b", b"live", ["live"]]
STEP_IDS = ["", "a b", None, 5, "a//b", "a/", "x" * 101, b"price", ["price"]]
SLUGS = ["", "a b", None, 5, "x" * 65, "a/b", b"shop"]
NAMES = ["", None, 5, b"w", "\ud800"]
TEXTS = [None, 5, b"x"]
NOTES = [5, b"x", ["x"]]
"""Texts that may be left out."""
TIMES = [None, "1", 1.5, True, -1, 2**53, [1]]
SPANS = [None, "1", 1.5, True, -1, 2**53]
ATTEMPTS = [None, "1", 1.5, True, 0, -1, 2**24]
COUNTS = [None, "1", 1.5, True, -1, 2**53]
FLAGS = [None, 1, "yes"]
STEP_LISTS = [None, 5, "price", ["a b"], [5], [None], [""]]
ERRORS = [None, 5, "text", {}, {"message": 5}, {"message": "m", "name": 5}, {"message": "m", "stack": 5}]
USAGE = [5, "much", {"peak_memory_bytes": 1}, {"peakMemoryBytes": "much"}]


class Part(NamedTuple):
    """A wrong value of which the error names a part."""

    value: Any
    named: str


def unless_none(values: list[Any]) -> list[Any]:
    """What an argument that may be None must not be."""
    return [value for value in values if value is not None]


def submission(**changes: Any) -> RunSubmission:
    return RunSubmission(**{"workflow_slug": "shop", "input": {"cents": 1}, **changes})


def registration(**changes: Any) -> WorkflowRegistration:
    steps = (StepDefinition(id="price", name="price", dependencies=(), export_output=False),)
    return WorkflowRegistration(**{"slug": "new", "name": "New", "steps": steps, **changes})


def version(**changes: Any) -> WorkflowVersion:
    made = {"workflow_slug": "shop", "version_id": "v9", "version_number": 1, "created_at": 1, "step_manifest": ("a",)}
    return WorkflowVersion(**{**made, "total_steps": 1, **changes})


LINE = {
    "type": "LogEntry",
    "category": "step",
    "stepId": "price",
    "stream": "stdout",
    "message": "m",
    "attemptNumber": 1,
}
OUTPUT = {
    "type": "StepCompleted", "category": "step", "stepId": "price", "attemptNumber": 1, "durationUs": 1, "exportOutput": False,
}  # fmt: skip
EVENTS = [
    Part(None, "event"), Part(5, "event"), Part("text", "event"), Part({}, "type"), Part({"type": "Nope"}, "type"),
    Part({"type": None}, "type"), Part({"type": "LogEntry"}, "category"), Part({**LINE, "stepId": "a b"}, "step_id"),
    Part({**LINE, "attemptNumber": 0}, "attemptNumber"), Part({**LINE, "eventId": "x"}, "eventId"),
    Part({**LINE, "eventId": str(2**53)}, "eventId"), Part({**LINE, "timestampUs": -1}, "timestampUs"),
    Part({**LINE, "runId": "other"}, "runId"), Part({**LINE, "workflowSlug": "other"}, "workflowSlug"),
    Part({**LINE, "message": 5}, "message"),
    Part({**OUTPUT, "output": f'"{BIG}"'}, "output"), Part({**OUTPUT, "output": "{"}, "output"),
]  # fmt: skip
GOOD_LINE = {"timestamp": 1, "stream": "stdout", "message": "m", "attempt_number": 1}
LOGS = [
    5, "text", {}, [5], [{}], [{**GOOD_LINE, "timestamp": -1}], Part([{**GOOD_LINE, "stream": "out"}], "stream"),
    Part([{**GOOD_LINE, "message": 5}], "message"),
]  # fmt: skip

BAD_SLOTS = [Part({"slot_index": -1}, "slot_index"), Part({"resource_snapshot": 5}, "resource_snapshot")]

WRONG: dict[str, list[Any]] = {
    "workflow_slug": SLUGS,
    "run_id": RUN_IDS, "source_run_id": RUN_IDS, "target_run_id": RUN_IDS, "parent_run_id": RUN_IDS, "original_run_id": RUN_IDS,
    "step_id": STEP_IDS, "from_step_id": STEP_IDS, "cascaded_from": unless_none(STEP_IDS), "failed_step": unless_none(STEP_IDS),
    "include_step_ids": STEP_LISTS, "step_ids": STEP_LISTS, "dependencies": STEP_LISTS, "retried_steps": STEP_LISTS,
    "worker_id": NAMES, "reclaimed_by": NAMES, "original_worker_id": NAMES, "name": NAMES, "version_id": NAMES,
    "available_at": TIMES, "next_retry_at": TIMES, "last_heartbeat": TIMES, "available_before": unless_none(TIMES),
    "start_us": unless_none(TIMES), "end_us": [*unless_none(TIMES)],
    "stale_threshold": SPANS, "stale_duration": SPANS, "stale_threshold_us": SPANS, "duration_us": SPANS,
    "deadline_us": unless_none(SPANS), "timeout": [*unless_none(SPANS), 0],
    "attempt_number": ATTEMPTS, "next_attempt_number": [*ATTEMPTS, 1, 3], "workflow_attempt_number": ATTEMPTS[:-1],
    "previous_attempt_number": ATTEMPTS[:-1], "lease": unless_none(COUNTS),
    "retry_delay_ms": COUNTS, "completed_steps": COUNTS, "resumed_steps": COUNTS, "pending_steps": COUNTS,
    "total_steps": COUNTS, "sequence_number": COUNTS, "slot_index": unless_none(COUNTS), "policy_index": unless_none(COUNTS),
    "next_policy_index": unless_none(COUNTS), "max_retries": unless_none(COUNTS), "total_policies": unless_none(COUNTS),
    "worker_concurrency": [*unless_none(COUNTS), 0], "attempt_in_policy": [*unless_none(COUNTS), 0],
    "next_attempt_in_policy": [*unless_none(COUNTS), 0],
    "limit": ["1", 1.5, True, -1], "offset": [None, "1", 1.5, True, -1],
    "priority": ["1", 1.5, True, 101, -101],
    "terminal": FLAGS, "has_input_schema": FLAGS, "has_input": FLAGS, "has_schema": FLAGS, "success": FLAGS,
    "export_output": FLAGS, "exclude_terminal": FLAGS, "include_inactive": FLAGS,
    "reason": NOTES, "label": NOTES, "idempotency_key": [5, "", b"k", "k" * 513],
    "failure_reason": [None, "", "bad luck", 5], "skip_type": [None, "", "whim", 5],
    "category": ["", "steps", 5], "types": ["StepStarted", 5, [5], [None]],
    "status": ["failed", 5, ["done"], [None], [5]], "tags": ["eu", 5, [5], [""], ["a b"], [None], ["t" * 65]],
    "grouping_strategy": ["", "same", None, 5], "fingerprint": [None, 5, "", "a", "a:b", "a:b:c:d"],
    "run_ids": ["live", 5, [5], ["a b"], [None]],
    "time_range": [5, "day", (), (1,), (2, 1), (None, 1), ("1", 2), {"start_us": 1}, (1, 2, 3)],
    "error": ERRORS, "metadata": [5, "x", {"a": object()}, {5: 1}],
    "output": [CIRCLE, BIG], "data": [None, 5, "{", f'"{BIG}"', "\ud800"], "input": [CIRCLE, BIG, {"cents": "many"}, 5],
    "resource_usage": USAGE, "slot": [5, "x", {"slot": 1}, *BAD_SLOTS],
    "logs": LOGS, "parent_checkpoint": [5, "x", {}, {"name": "n", "sequence_number": -1}],
    "validation_errors": [5, "x", [5], [{"path": "a"}]],
    "event": EVENTS,
    "events": [
        None, 5, "x", [5], [("shop", "live")], ["abc"], Part([("shop", "live", LINE), ("shop", "live", {})], "type"),
        Part([("a b", "live", LINE)], "workflow_slug"), Part([("shop", "a b", LINE)], "run_id"),
    ],
    "submission": [
        None, 5, {}, Part(submission(run_id="a b"), "run_id"), Part(submission(priority=101), "priority"),
        Part(submission(available_at=-1), "available_at"), Part(submission(available_at=2**53), "available_at"),
        Part(submission(tags=("a b",)), "tags"), Part(submission(tags=("",)), "tags"), Part(submission(tags=("t" * 65,)), "tags"),
        Part(submission(idempotency_key=""), "idempotency_key"), Part(submission(idempotency_key="k" * 513), "idempotency_key"),
        Part(submission(input={"cents": "many"}), "cents"),
        Part(submission(input=None), "input"), Part(submission(input={"cents": 1, "x": BIG}), "input"),
        Part(submission(input=CIRCLE), "input"), Part(submission(workflow_slug="a b"), "workflow_slug"),
        Part(submission(workflow_slug="unknown"), "unknown"),
    ],
    "registration": [
        None, 5, {}, Part(registration(slug="a b"), "slug"), Part(registration(steps=()), "steps"),
        Part(registration(input_schema_json="{"), "inputSchemaJSON"), Part(registration(input_schema_json=5), "inputSchemaJSON"),
        Part(registration(input_schema_json={"type": "text"}), "inputSchemaJSON"),
        Part(registration(steps=(StepDefinition(id="a b", name="a", dependencies=(), export_output=False),)), "steps"),
        Part(registration(steps=(StepDefinition(id="a", name="a", dependencies=("b",), export_output=False),)), "dependencies"),
    ],
    "version": [
        None, 5, {}, Part(version(workflow_slug="a b"), "workflow_slug"), Part(version(version_id=""), "version_id"),
        Part(version(created_at=-1), "created_at"), Part(version(created_at=2**53), "created_at"),
    ],
}  # fmt: skip
FIGURES = (
    "get_error_analysis", "get_retry_analysis", "get_scheduling_latency", "get_step_duration", "get_workflow_duration",
    "get_worker_stability", "get_throughput", "get_success_rate", "get_analytics_summary",
)  # fmt: skip
ELSEWHERE: dict[tuple[str, str], list[Any]] = {
    ("list_runs", "workflow_slug"): unless_none(SLUGS),
    ("list_runs", "tags"): ["eu", 5, [5], [""], [None]],
    ("list_scheduled_steps", "workflow_slug"): unless_none(SLUGS),
    ("get_queue_depth", "workflow_slug"): unless_none(SLUGS),
    ("get_errors_list", "workflow_slug"): unless_none(SLUGS),
    ("get_errors_list", "limit"): [None, "1", 1.5, True, -1],
    ("get_error_detail", "limit"): [None, "1", 1.5, True, -1],
    ("load_events", "step_id"): unless_none(STEP_IDS),
    ("load_step_logs", "attempt_number"): unless_none(ATTEMPTS),
    ("save_step_scheduled", "reason"): [None, "", "whim", 5],
    ("save_step_scheduled", "retry_delay_ms"): unless_none(COUNTS),
    ("save_step_skipped", "reason"): TEXTS,
    ("save_step_failed", "next_retry_at"): unless_none(TIMES),
    ("save_step_failed_and_schedule_retry", "failure_reason"): [None, "", "bad luck", 5, "cancelled", "worker-crash"],
    ("save_run_submitted", "input"): [5, "{", f'"{BIG}"'],
    ("save_workflow_complete", "output"): [None, 5, "x", [], {"a": CIRCLE}],
    ("save_workflow_complete", "total_steps"): [*COUNTS, 0],
    ("save_workflow_input_validation", "error"): unless_none(ERRORS),
    ("save_run_submitted", "priority"): [None, "1", 1.5, True, 101, -101],
    ("save_run_submitted", "timeout"): [*unless_none(SPANS), 0],
    ("save_step_failed_and_schedule_retry", "attempt_number"): ATTEMPTS[:-1],
    **{
        (name, argument): unless_none(WRONG[argument])
        for name in FIGURES
        for argument in ("workflow_slug", "step_id", "run_ids")
    },
}
"""Where an argument of a name is another one than elsewhere: mostly one that may be None, or must not be."""

STEP = {"workflow_slug": "shop", "run_id": "live", "step_id": "price"}
RUN = {"workflow_slug": "shop", "run_id": "live"}
ERROR = {"message": "no", "name": "ValueError"}
FIGURE = {"start_us": 1, "end_us": 2**52, "workflow_slug": "shop", "step_id": "price", "run_ids": ["live"]}
TIERS = {"policy_index": 0, "attempt_in_policy": 1}
SPENT = {
    "peak_memory_bytes": 1, "cpu_time_user_us": 1, "cpu_time_system_us": 1, "cpu_time_total_us": 2,
    "voluntary_context_switches": 0, "involuntary_context_switches": 0,
}  # fmt: skip
GOOD: dict[str, dict[str, Any]] = {
    "initialize": {"deadline_us": 1_000_000}, "backend_ready": {}, "close": {}, "initialize_run": RUN,
    "submit_run": {"submission": submission()},
    "run_exists": RUN, "get_run": {"run_id": "live"}, "list_run_ids": {"workflow_slug": "shop"}, "list_active_workflows": {},
    "list_runs": {"workflow_slug": "shop", "status": ["failed"], "tags": ["eu"], "limit": 1, "offset": 0},
    "cancel_run": {"run_id": "live", "reason": "why"},
    "list_scheduled_steps": {"available_before": 1, "workflow_slug": "shop", "limit": 1},
    "is_step_claimable": STEP,
    "claim_scheduled_step": {**STEP, "worker_id": "w", "dependencies": [], "slot_index": 0, "worker_concurrency": 1},
    "reclaim_stale_steps": {"stale_threshold_us": 2**52, "reclaimed_by": "r"},
    "get_step_output_path": {**STEP, "attempt_number": 1, "lease": 1},
    "register_workflow": {"registration": registration()}, "get_workflow_metadata": {"workflow_slug": "shop"},
    "list_workflow_metadata": {}, "get_workflow_steps": {"workflow_slug": "shop"},
    "calculate_dependents": {"workflow_slug": "shop", "step_id": "price"}, "create_workflow_version": {"version": version()},
    "get_workflow_version": {"workflow_slug": "shop", "version_id": "v9"},
    "get_current_workflow_version": {"workflow_slug": "shop"}, "list_workflow_versions": {"workflow_slug": "shop", "limit": 1},
    "append_event": {**RUN, "event": LINE}, "batch_append_events": {"events": [("shop", "live", LINE)]},
    "save_step_scheduled": {**STEP, "available_at": 1, "reason": "retry", "attempt_number": 1, "retry_delay_ms": 1, "priority": 1},
    "save_step_start": {
        **STEP, "worker_id": "w", "dependencies": [], "attempt_number": 1, "slot_index": 0, "worker_concurrency": 1,
    },
    "save_step_complete": {
        **STEP, "output": 1, "duration_us": 1, "attempt_number": 1, "logs": [], "resource_usage": SPENT, "export_output": False,
    },
    "save_step_failed": {
        **STEP, "error": ERROR, "duration_us": 1, "attempt_number": 1, "terminal": True, "failure_reason": "timeout",
        "next_retry_at": 1, "resource_usage": SPENT, **TIERS,
    },
    "save_step_failed_and_schedule_retry": {
        **STEP, "error": ERROR, "duration_us": 1, "attempt_number": 1, "next_retry_at": 1, "failure_reason": "timeout",
        "available_at": 1, "next_attempt_number": 2, "retry_delay_ms": 1, "max_retries": 1, "total_policies": 1, **TIERS,
        "next_policy_index": 0, "next_attempt_in_policy": 2, "priority": 1, "resource_usage": SPENT,
    },
    "save_step_skipped": {
        **STEP, "skip_type": "cascade", "reason": "why", "metadata": {"a": 1}, "duration_us": 1, "attempt_number": 1,
        "cascaded_from": "charge",
    },
    "save_step_heartbeat": {**STEP, "worker_id": "w", "attempt_number": 1, "slot": {"slot_index": 0}},
    "save_step_reclaimed": {
        **STEP, "original_worker_id": "w", "reclaimed_by": "r", "last_heartbeat": 1, "stale_threshold": 1, "stale_duration": 2,
        "attempt_number": 1,
    },
    "save_step_logs": {
        **STEP, "logs": [{"timestamp": 1, "stream": "stdout", "message": "m", "attempt_number": 1}],
    },
    "load_step_logs": {**STEP, "attempt_number": 1},
    "save_step_checkpoint": {
        **STEP, "name": "n", "sequence_number": 1, "attempt_number": 1, "data": "1", "label": "l",
        "parent_checkpoint": {"name": "n", "sequence_number": 0},
    },
    "save_step_checkpoint_failed": {**STEP, "name": "n", "sequence_number": 0, "attempt_number": 1, "error": ERROR},
    "save_run_submitted": {
        "workflow_slug": "shop", "run_id": "saved", "version_id": "v", "available_at": 1, "priority": 1, "input": "1",
        "has_input_schema": False, "timeout": 1, "idempotency_key": "k", "metadata": {"a": 1}, "tags": ["eu"],
    },
    "save_workflow_start": {
        **RUN, "version_id": "v", "workflow_attempt_number": 1, "has_input_schema": False, "has_input": False,
    },
    "save_workflow_input_validation": {
        **RUN, "workflow_attempt_number": 1, "has_schema": True, "success": False, "error": ERROR,
        "validation_errors": [{"path": "a", "message": "m"}],
    },
    "save_workflow_complete": {**RUN, "output": {}, "workflow_attempt_number": 1, "duration_us": 1, "total_steps": 2},
    "save_workflow_failed": {
        **RUN, "error": ERROR, "workflow_attempt_number": 1, "duration_us": 1, "completed_steps": 0,
        "failure_reason": "step-failed", "failed_step": "price",
    },
    "save_workflow_resumed": {**RUN, "version_id": "v", "original_run_id": "live", "resumed_steps": 0, "pending_steps": 2},
    "save_workflow_cancelled": {
        **RUN, "workflow_attempt_number": 1, "duration_us": 1, "completed_steps": 0, "reason": "why",
    },
    "save_workflow_retry_started": {
        **RUN, "workflow_attempt_number": 2, "previous_attempt_number": 1, "retried_steps": ["price"], "reason": "why",
    },
    "load_events": {**RUN, "category": "step", "step_id": "price", "types": ["StepStarted"]},
    "load_run": RUN, "load_step_events_for_projection": RUN, "get_failed_steps": RUN,
    **dict.fromkeys(FIGURES, FIGURE),
    "get_queue_depth": {"workflow_slug": "shop"}, "get_queue_depth_by_workflow": {},
    "get_errors_list": {
        "start_us": 1, "end_us": 2**52, "workflow_slug": "shop", "grouping_strategy": "exact", "limit": 1, "offset": 0,
    },
    "get_error_detail": {
        "fingerprint": ":".join(["a" * 40] * 3), "grouping_strategy": "exact", "start_us": 1, "end_us": 2**52, "limit": 1,
        "offset": 0,
    },
    "retry_run": {"run_id": "failed", "reason": "why"}, "resume_run": {"run_id": "live"},
    "rerun_from": {"parent_run_id": "ended", "from_step_id": "price", "input": {"cents": 2}},
    "copy_entire_run": {"workflow_slug": "shop", "source_run_id": "ended", "target_run_id": "new"},
    "copy_workflow_events": {
        "workflow_slug": "shop", "source_run_id": "ended", "target_run_id": "new", "exclude_terminal": True,
    },
    "copy_step_events": {
        "workflow_slug": "shop", "source_run_id": "ended", "target_run_id": "live", "include_step_ids": ["price"],
    },
    "delete_step_events": {**RUN, "step_ids": ["charge"]}, "delete_workflow_terminal_events": {**RUN, "run_id": "ended"},
    "get_active_workers": {"stale_threshold_us": 1, "include_inactive": True, "time_range": (1, 2)},
    "get_worker_by_id": {"worker_id": "w"},
}  # fmt: skip
