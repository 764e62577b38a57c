"""The table of endpoints, and what each does.

A handler takes the desk, the user and the request's values, already read and checked, and gives a model or a response.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel
from starlette.requests import Request

from redisflow.backend.redis import inspect
from redisflow.client import Run, Submission
from redisflow.model import analytics as figures
from redisflow.model.errors import InvalidArgument, ResultTimeout, RunCancelled, RunFailed
from redisflow.web.access import User
from redisflow.web.api import schemas as s
from redisflow.web.api.problems import ApiProblem
from redisflow.web.api.streams import follow_events
from redisflow.web.audit import record
from redisflow.web.desk import Desk

LONGEST_WAIT_US: Final = 300_000_000
MOST_RUNS: Final = 500


@dataclass(frozen=True)
class Call:
    """One request: what is shared, who asks, and its path, query and body."""

    desk: Desk
    user: User
    request: Request
    query: dict[str, Any]
    body: Any = None

    @property
    def run_id(self) -> str:
        """Of the path."""
        return str(self.request.path_params["run_id"])

    async def record(self, run_id: str, action: str, **details: Any) -> None:
        """Note who did it."""
        await record(self.desk.backend, run_id, self.user.name, action, via="api", **details)


@dataclass(frozen=True)
class Param:
    """A query or header parameter; `kind` says how its text is read."""

    name: str
    kind: Literal["string", "integer", "boolean", "duration", "strings", "grouping"]
    about: str
    place: Literal["query", "header"] = "query"


@dataclass(frozen=True)
class Endpoint:
    """A row of the table."""

    method: Literal["GET", "POST"]
    path: str
    name: str
    about: str
    handler: Callable[[Call], Awaitable[Any]]
    answer: type[BaseModel] | None
    params: tuple[Param, ...] = ()
    body: type[BaseModel] | None = None
    statuses: tuple[int, ...] = (200,)
    stream: bool = field(default=False)

    @property
    def writes(self) -> bool:
        """Whether the scope `write` is needed."""
        return self.method == "POST"


async def submit(call: Call) -> tuple[int, s.Submitted]:
    """Submit one run; the key makes a repeat safe."""
    body: s.SubmitBody = call.body
    item = Submission(
        body.input, key=call.request.headers.get("idempotency-key"), priority=body.priority, tags=body.tags, delay=body.delay,
        timeout=body.timeout, run_id=body.run_id, metadata=body.metadata,
    )  # fmt: skip
    run: Run[Any]
    (run,) = await call.desk.client.submit_many(str(call.request.path_params["slug"]), [item])
    if run.is_new:
        await call.record(run.id, "submit")
    return (201 if run.is_new else 200), s.Submitted(run_id=run.id, is_new=run.is_new)


async def list_runs(call: Call) -> s.RunList:
    """A page of runs from indexes."""
    q = call.query
    limit = min(q.get("limit", 50), MOST_RUNS)
    if q.keys() & {"startUs", "endUs", "idPrefix", "cursor"}:
        return await _search_runs(call, max(1, limit))
    runs, total = await call.desk.backend.list_runs(
        q.get("workflow"), q.get("status", []), q.get("tag", []), limit, q.get("offset", 0)
    )
    return s.RunList(runs=runs, total=total)


async def _search_runs(call: Call, limit: int) -> s.RunList:
    q, backend = call.query, call.desk.backend
    if "offset" in q:
        raise InvalidArgument("offset", q["offset"], "the cursor of the page before, beside startUs, endUs or idPrefix")
    found = await backend.search_ids(
        q.get("workflow"), q.get("status", []), q.get("tag", []), prefix=q.get("idPrefix", ""), start_us=q.get("startUs"),
        end_us=q.get("endUs"), cursor=q.get("cursor"), limit=limit,
    )  # fmt: skip
    runs = [run for run in await backend.get_runs(found.ids) if run is not None]
    on = None if found.cursor is None else str(found.cursor)
    return s.RunList(runs=runs, looked_at=found.looked_at, among=found.among, cursor=on)


async def get_run(call: Call) -> s.RunDetail:
    """State of a run and its steps."""
    run = await call.desk.client.status(call.run_id)
    steps = await call.desk.client.steps(call.run_id)
    return s.RunDetail(run=run, steps=list(steps.values()))


async def result(call: Call) -> tuple[int, s.RunResult]:
    """How the run ended; where it has not within `wait`, 202."""
    wait = min(call.query.get("wait", 0), LONGEST_WAIT_US) / 1e6
    client, run_id = call.desk.client, call.run_id
    try:
        value = await client.result(run_id, timeout=wait)
    except ResultTimeout:
        return 202, s.RunResult(run_id=run_id, status=(await client.status(run_id)).status)
    except RunFailed as error:
        told = s.RunError(name=error.error_name, message=error.error_message, step=error.step_id, stack=error.stack)
        return 200, s.RunResult(run_id=run_id, status="failed", error=told)
    except RunCancelled as error:
        return 200, s.RunResult(run_id=run_id, status="cancelled", reason=error.reason)
    return 200, s.RunResult(run_id=run_id, status="completed", result=value)


async def events(call: Call) -> Any:
    """Events as they stand in the stream, live until the run ends if wanted."""
    return await follow_events(call.desk, call.request, call.run_id, follow=call.query.get("follow", False))


async def logs(call: Call) -> s.LogList:
    """What the steps wrote."""
    run, step, attempt = await call.desk.client.status(call.run_id), call.query.get("step"), call.query.get("attempt")
    found = await call.desk.backend.load_events(run.workflow_slug, run.run_id, "step", step, ["LogEntry"])
    lines = [s.LogLine.model_validate(event.to_wire()) for event in found]
    return s.LogList(logs=[line for line in lines if attempt in (None, line.attempt_number)])


async def cancel(call: Call) -> s.Cancelled:
    """Cancel a run that has not ended."""
    done = await call.desk.client.cancel(call.run_id, call.body.reason)
    if done.cancelled:
        await call.record(call.run_id, "cancel")
    return s.Cancelled(cancelled=done.cancelled, status=done.status)


async def retry(call: Call) -> s.Retried:
    """Start a failed run anew where it stopped."""
    steps = await call.desk.client.retry(call.run_id, call.body.reason)
    await call.record(call.run_id, "retry")
    return s.Retried(scheduled_steps=steps)


async def rerun(call: Call) -> tuple[int, s.Submitted]:
    """A new run that repeats part of an ended one."""
    made = await call.desk.client.rerun(call.run_id, call.body.from_step, call.body.input)
    await call.record(call.run_id, "rerun", step=call.body.from_step, newRun=made.id)
    await call.record(made.id, "rerun", step=call.body.from_step, parentRun=call.run_id)
    return 201, s.Submitted(run_id=made.id, is_new=True)


async def list_workflows(call: Call) -> s.WorkflowList:
    """Registered workflows with their input schemas."""
    return s.WorkflowList(workflows=await call.desk.backend.list_workflow_metadata())


async def list_queues(call: Call) -> s.QueueList:
    """Queues by level."""
    depths = await inspect.queue_depths(call.desk.backend)
    return s.QueueList(queues=[s.QueueLevel(**vars(depth)) for depth in depths])


async def list_workers(call: Call) -> figures.ActiveWorkersResult:
    """Workers seen lately and what they run."""
    return await call.desk.backend.get_active_workers(call.desk.backend.settings.stale_after)


FIGURES: Final[dict[str, type[BaseModel]]] = {
    "summary": figures.AnalyticsSummary, "error_analysis": figures.ErrorAnalysis, "retry_analysis": figures.RetryAnalysis,
    "scheduling_latency": figures.SchedulingLatency, "step_duration": figures.StepDuration,
    "workflow_duration": figures.WorkflowDuration, "worker_stability": figures.WorkerStability,
    "throughput": figures.Throughput, "success_rate": figures.SuccessRate,
}  # fmt: skip
"""Figure to its model; the method of the backend is `get_<figure>`."""


async def analytics(call: Call) -> BaseModel:
    """One figure over a window of time; it reads every event of the window."""
    name = str(call.request.path_params["figure"]).replace("-", "_")
    if name not in FIGURES:
        raise ApiProblem(404, "not-found", f"figure={name!r} is not known: one of {', '.join(FIGURES)}")
    method = "get_analytics_summary" if name == "summary" else f"get_{name}"
    answer: BaseModel = await getattr(call.desk.backend, method)(**_window(call))
    return answer


def _window(call: Call) -> dict[str, Any]:
    names = {"startUs": "start_us", "endUs": "end_us", "workflow": "workflow_slug", "step": "step_id"}
    return {name: call.query[given] for given, name in names.items() if given in call.query}


async def list_errors(call: Call) -> figures.ErrorsList:
    """Failures in groups of equal fingerprints."""
    return await call.desk.backend.get_errors_list(**_page(call))


async def get_error(call: Call) -> figures.ErrorDetail:
    """One group with its occurrences, newest first."""
    options = _page(call)
    options.pop("workflow_slug", None)
    return await call.desk.backend.get_error_detail(str(call.request.path_params["fingerprint"]), **options)


def _page(call: Call) -> dict[str, Any]:
    options: dict[str, Any] = {name: call.query[name] for name in ("limit", "offset") if name in call.query}
    if "grouping" in call.query:
        options["grouping_strategy"] = call.query["grouping"]
    return {**options, **{name: value for name, value in _window(call).items() if name != "step_id"}}


_PAGE = (Param("limit", "integer", "At most so many"), Param("offset", "integer", "Pass over so many"))
_WINDOW = (
    Param("startUs", "integer", "First time that counts, in µs since the epoch; default: 24 hours ago"),
    Param("endUs", "integer", "Last time that counts; default: now"),
    Param("workflow", "string", "Only this workflow"),
)
_STEP = Param("step", "string", "Only this step")
_GROUPING = Param("grouping", "grouping", "Which failures count as equal")
_KEY = Param("Idempotency-Key", "string", "A second submission with the same key gives the first run", "header")
_LAST = Param("Last-Event-ID", "string", "Stream id of the last event seen; the answer goes on after it", "header")
_RUN_FILTERS = (
    Param("workflow", "string", "Only this workflow"), Param("status", "strings", "In one of these statuses"),
    Param("tag", "strings", "With all of these tags"), *_PAGE,
    Param("startUs", "integer", "First creation time that counts, in µs since the epoch"),
    Param("endUs", "integer", "Last creation time that counts"),
    Param("idPrefix", "string", "What the id begins with; a whole id is looked up directly"),
    Param("cursor", "string", "That of the page before, beside the same filters"),
)  # fmt: skip

ENDPOINTS: Final = (
    Endpoint("POST", "/workflows/{slug}/runs", "submitRun", "Submit a run", submit, s.Submitted, (_KEY,), s.SubmitBody,
             (201, 200)),
    Endpoint("GET", "/workflows", "listWorkflows", "List registered workflows", list_workflows, s.WorkflowList),
    Endpoint("GET", "/runs", "listRuns", "List runs, newest first", list_runs, s.RunList, _RUN_FILTERS),
    Endpoint("GET", "/runs/{run_id}", "getRun", "State of a run and its steps", get_run, s.RunDetail),
    Endpoint("GET", "/runs/{run_id}/result", "getResult", "How a run ended; 202 where it has not", result, s.RunResult,
             (Param("wait", "duration", "How long to wait for the end, such as 30s; at most 5m"),), None, (200, 202)),
    Endpoint("GET", "/runs/{run_id}/events", "getEvents",
             "Events as JSON lines, or as Server-Sent Events where that is accepted", events, None,
             (Param("follow", "boolean", "Go on until the run ends"), Param("after", "string", "As Last-Event-ID"), _LAST),
             stream=True, statuses=(200, 204)),
    Endpoint("GET", "/runs/{run_id}/logs", "getLogs", "What the steps wrote", logs, s.LogList,
             (_STEP, Param("attempt", "integer", "Only this attempt"))),
    Endpoint("POST", "/runs/{run_id}/cancel", "cancelRun", "Cancel a run", cancel, s.Cancelled, (), s.ReasonBody),
    Endpoint("POST", "/runs/{run_id}/retry", "retryRun", "Retry a failed run where it stopped", retry, s.Retried, (), s.ReasonBody),
    Endpoint("POST", "/runs/{run_id}/rerun", "rerunRun", "Repeat a step in a new run", rerun, s.Submitted, (), s.RerunBody, (201,)),
    Endpoint("GET", "/queues", "listQueues", "Queues by priority level", list_queues, s.QueueList),
    Endpoint("GET", "/workers", "listWorkers", "Workers and their running steps", list_workers, figures.ActiveWorkersResult),
    Endpoint("GET", "/analytics/{figure}", "getFigure", "A figure over a window of time", analytics, None, (*_WINDOW, _STEP)),
    Endpoint("GET", "/errors", "listErrors", "Failures in groups", list_errors, figures.ErrorsList, (*_WINDOW, *_PAGE, _GROUPING)),
    Endpoint("GET", "/errors/{fingerprint}", "getError", "One group of failures", get_error, figures.ErrorDetail,
             (*_WINDOW[:2], *_PAGE, _GROUPING)),
)  # fmt: skip
