"""What the forms do: submit, cancel, retry, rerun, one run or a selection; each is recorded with who did it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from redisflow.codec import decode_payload
from redisflow.model.errors import RedisflowError, UsageError
from redisflow.web.audit import record
from redisflow.web.desk import Desk, Refusal, desk_of
from redisflow.web.forms import fields_of, read_fields, read_json
from redisflow.web.pages.errors import grouping_of
from redisflow.web.pages.workflows import show_workflow

MOST: Final = 1_000
"""Runs that one form acts on."""


async def cancel(request: Request, form: FormData) -> Response:
    """Cancel a run."""
    run_id = request.path_params["run_id"]
    reason = text_of(form, "reason") or None
    result = await desk_of(request).client.cancel(run_id, reason)
    if result.cancelled:
        await _record(request, run_id, "cancel")
        return _back(request, f"/runs/{run_id}", "Cancelled.")
    return _back(request, f"/runs/{run_id}", f"Nothing to cancel: the run is {result.status} already.")


async def retry(request: Request, form: FormData) -> Response:
    """Start a failed run anew where it stopped."""
    run_id = request.path_params["run_id"]
    steps = await desk_of(request).client.retry(run_id, text_of(form, "reason") or None)
    await _record(request, run_id, "retry")
    return _back(request, f"/runs/{run_id}", f"Retried: {steps} {'step' if steps == 1 else 'steps'} scheduled.")


async def rerun(request: Request, form: FormData) -> Response:
    """Repeat a step and all that depends on it in a new run, with the input as it was edited."""
    run_id, step = request.path_params["run_id"], text_of(form, "step")
    desk = desk_of(request)
    given = await _edited(desk, run_id, text_of(form, "input"))
    made = await desk.client.rerun(run_id, step, given)
    await _record(request, run_id, "rerun", step=step, newRun=made.id)
    await _record(request, made.id, "rerun", step=step, parentRun=run_id)
    return _back(request, f"/runs/{made.id}", f"A new run that repeats {step} of {run_id}.")


async def _edited(desk: Desk, run_id: str, typed: str) -> Any:
    """The input that was typed; None where it is the run's own."""
    if not typed.strip():
        return None
    try:
        value = read_json(typed)
    except ValueError as error:
        raise UsageError(f"The input is no JSON: {error}") from None
    run = await desk.client.status(run_id)
    if value is None or (run.input is not None and decode_payload(run.input) == value):
        return None
    return value


async def submit(request: Request, form: FormData) -> Response:
    """Submit a run with what was typed into the form of its schema; a mistake comes back with the form."""
    slug, desk = request.path_params["slug"], desk_of(request)
    plan = await desk.backend.registered_plan(slug)
    typed = {name.removeprefix("f:"): str(value) for name, value in form.multi_items() if name.startswith("f:")}
    options = {name: text_of(form, name) for name in ("key", "priority", "delay", "tags")}
    try:
        value = _typed_input(fields_of(plan.input_schema), typed, text_of(form, "json"))
        run = await desk.client.submit(
            slug, value, key=options["key"] or None, priority=_whole(options["priority"]), delay=options["delay"] or None,
            tags=options["tags"].replace(",", " ").split(),
        )  # fmt: skip
    except UsageError as error:
        return await show_workflow(request, slug, 422, str(error), {**typed, **options, "json": text_of(form, "json")})
    await _record(request, run.id, "submit")
    return _back(request, f"/runs/{run.id}", "Submitted." if run.is_new else "The run that this key stands for.")


def _typed_input(fields: Any, typed: dict[str, str], text: str) -> Any:
    if fields is not None and not text.strip():
        return read_fields(fields, typed)
    if not text.strip():
        return None
    try:
        return read_json(text)
    except ValueError as error:
        raise UsageError(f"The input is no JSON: {error}") from None


def _whole(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        raise UsageError(f"priority={text!r} is not allowed: a whole number from -100 to 100") from None


async def bulk(request: Request, form: FormData) -> Response:
    """Cancel, retry or rerun each run that is ticked."""
    what = text_of(form, "do")
    chosen = [str(run_id) for run_id in form.getlist("run")]
    if what not in _EACH:
        raise Refusal(400, "Choose what to do with the runs: cancel, retry or rerun.")
    done, refused = await _act_on(request, chosen[:MOST], what, _EACH[what])
    note = f"{_DONE[what]} {done} of {len(chosen)} runs." if chosen else "Tick the runs first."
    if refused:
        note += f" {len(refused)} were left as they are; the first: {refused[0]}"
    target = text_of(form, "back")
    return _back(request, target if target.startswith("/runs") else "/runs", note)


async def retry_group(request: Request, form: FormData) -> Response:
    """Retry every run that failed with one error."""
    fingerprint = request.path_params["fingerprint"]
    grouping = grouping_of(text_of(form, "grouping"))
    since = _whole(text_of(form, "since"))
    detail = await desk_of(request).backend.get_error_detail(fingerprint, grouping, start_us=since, limit=MOST)
    runs = list(dict.fromkeys(seen.run_id for seen in detail.occurrences))
    done, refused = await _act_on(request, runs, "retry", _retry_one)
    note = f"Retried {done} of {len(runs)} runs."
    if refused:
        note += f" {len(refused)} were left as they are; the first: {refused[0]}"
    return _back(request, f"/errors/{fingerprint}?grouping={grouping}", note)


async def _act_on(
    request: Request, run_ids: list[str], what: str, act: Callable[[Desk, str], Awaitable[dict[str, Any]]]
) -> tuple[int, list[str]]:
    """Do it to each run; how many were done, and why the others were not."""
    done, refused = 0, []
    for run_id in run_ids:
        try:
            details = await act(desk_of(request), run_id)
        except RedisflowError as error:
            refused.append(str(error))
        else:
            done += 1
            await _record(request, run_id, what, **details)
            if "newRun" in details:
                await _record(request, details["newRun"], what, parentRun=run_id)
    return done, refused


async def _cancel_one(desk: Desk, run_id: str) -> dict[str, Any]:
    result = await desk.client.cancel(run_id)
    if not result.cancelled:
        raise RedisflowError(f"run {run_id} is {result.status} already")
    return {}


async def _retry_one(desk: Desk, run_id: str) -> dict[str, Any]:
    await desk.client.retry(run_id)
    return {}


async def _rerun_one(desk: Desk, run_id: str) -> dict[str, Any]:
    return {"newRun": await desk.backend.rerun_whole(run_id)}


_EACH: Final = {"cancel": _cancel_one, "retry": _retry_one, "rerun": _rerun_one}
_DONE: Final = {"cancel": "Cancelled", "retry": "Retried", "rerun": "Reran"}


async def _record(request: Request, run_id: str, what: str, **details: Any) -> None:
    await record(desk_of(request).backend, run_id, request.state.user.name, what, **details)


def _back(request: Request, target: str, note: str) -> Response:
    request.session["flash"] = note[:500]
    return RedirectResponse(target, 303)


def text_of(form: FormData, name: str) -> str:
    """A field of a form; "" where it is missing."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""
