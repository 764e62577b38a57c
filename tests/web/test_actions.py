"""Forms: what they do, that each leaves an audit event, and that none works without the token of its session."""

from __future__ import annotations

import re
from typing import Any

import pytest

from redisflow import Client, Worker, Workflow
from tests.web.conftest import Browser, audits, ended, shop


def target(answer: Any) -> str:
    return str(answer.headers["location"])


async def test_a_run_is_cancelled_and_it_is_recorded_by_whom(client: Client, browser: Browser) -> None:
    run = await client.submit(shop, {})
    answer = await browser.post(f"/runs/{run.id}/cancel", f"/runs/{run.id}", reason="wrong order")
    assert (await client.status(run.id)).status == "cancelled"
    assert "wrong order" in await browser.get(target(answer))
    (audit,) = await audits(client, run.id)
    assert (audit["user"], audit["action"], audit["via"]) == ("local", "cancel", "ui")
    again = await browser.post(f"/runs/{run.id}/cancel", f"/runs/{run.id}")
    assert "cancelled already" in await browser.get(target(again))
    assert len(await audits(client, run.id)) == 1, "what was not done is not recorded"


async def test_a_failed_run_is_retried(client: Client, browser: Browser) -> None:
    run_id = await ended(client, fail="no")
    await browser.post(f"/runs/{run_id}/retry", f"/runs/{run_id}")
    assert (await client.status(run_id)).status == "pending"
    assert [audit["action"] for audit in await audits(client, run_id)] == ["retry"]
    html = await browser.post(f"/runs/{run_id}/retry", f"/runs/{run_id}", 409)
    assert "only a failed run can be retried" in html.text


async def test_a_rerun_takes_an_edited_input_and_both_runs_tell_of_it(client: Client, browser: Browser) -> None:
    run_id = await ended(client, cents=3)
    page = f"/runs/{run_id}"
    made = target(await browser.post(f"{page}/rerun", page, step="charge", input='{"cents": 9}')).rpartition("/")[2]
    assert (await client.status(made)).input == '{"cents":9}'
    assert run_id in await browser.get(f"/runs/{made}")
    assert (await audits(client, run_id))[0]["newRun"] == made
    assert (await audits(client, made))[0]["parentRun"] == run_id
    kept = target(await browser.post(f"{page}/rerun", page, step="charge", input='{ "cents": 3 }')).rpartition("/")[2]
    assert (await client.status(kept)).input == '{"cents":3}'
    for wrong in ({"step": "none"}, {"step": "charge", "input": "{"}, {"step": "charge", "input": "NaN"}):
        await browser.post(f"{page}/rerun", page, 400, **wrong)


async def test_a_selection_is_acted_on_run_by_run(client: Client, browser: Browser) -> None:
    live = [(await client.submit(shop, {})).id for _ in range(3)]
    await client.cancel(live[2])
    answer = await browser.post("/runs/act", "/runs", do="cancel", run=live, back="/runs?status=pending")
    assert target(answer) == "/runs?status=pending"
    assert "Cancelled 2 of 3 runs. 1 were left as they are" in await browser.get(target(answer))
    assert [(await client.status(run)).status for run in live] == ["cancelled"] * 3
    answer = await browser.post("/runs/act", "/runs", do="rerun", run=live[:1], back="//evil.example")
    assert target(answer) == "/runs"
    _, total = await client.runs()
    assert total == 4
    assert [audit["action"] for audit in await audits(client, live[0])] == ["cancel", "rerun"]
    await browser.post("/runs/act", "/runs", 400, do="explode", run=live)


async def test_a_rerun_of_a_run_with_several_roots_has_its_lineage(client: Client, browser: Browser) -> None:
    two = Workflow("two-roots", input=dict)

    @two.step
    async def left() -> None: ...

    @two.step
    async def right() -> None: ...

    await client.backend.register_plan(two.plan)
    async with Worker(client, [two]):
        run = await client.submit(two, {"n": 1}, tags=["eu"])
        await run.result(timeout=20)
        await browser.post("/runs/act", "/runs", do="rerun", run=[run.id])
        made = (await client.runs(tags=["eu"]))[0][0]
        assert made.run_id != run.id
        await client.result(made.run_id, timeout=20)
    wires = await client.backend.load_wire_events(made.run_id)
    lineage = next(wire for wire in wires if wire["type"] == "WorkflowRerunFromStep")
    assert (lineage["parentRunId"], lineage["rerunStepIds"]) == (run.id, ["left", "right"])
    assert made.input == '{"n":1}'
    assert sorted(wire["stepId"] for wire in wires if wire["type"] == "StepStarted") == ["left", "right"]
    assert [audit["parentRun"] for audit in await audits(client, made.run_id)] == [run.id]
    assert [audit["newRun"] for audit in await audits(client, run.id)] == [made.run_id]
    page = await browser.get(f"/runs/{made.run_id}")
    assert "all steps" in page
    assert f"/runs/{run.id}" in page


async def test_all_runs_of_an_error_are_retried(client: Client, browser: Browser) -> None:
    failed = [await ended(client, fail="no stock") for _ in range(2)]
    other = await ended(client, fail="other")
    (group,) = [g for g in (await client.backend.get_errors_list()).errors if g.error_message == "no stock"]
    answer = await browser.post(
        f"/errors/{group.fingerprint}/retry", f"/errors/{group.fingerprint}", grouping="exact", since="0"
    )
    assert "Retried 2 of 2 runs" in await browser.get(target(answer))
    assert [(await client.status(run)).status for run in (*failed, other)] == ["pending", "pending", "failed"]


async def test_a_run_is_submitted_from_the_form(client: Client, browser: Browser) -> None:
    await client.backend.register_plan(shop.plan)
    page = "/workflows/shop"
    made = target(
        await browser.post(
            f"{page}/submit", page, json='{"cents": 4}', key="k", tags="eu, vip", priority="3", delay="1h"
        )
    )
    run = await client.status(made.rpartition("/")[2])
    assert (run.input, run.priority, run.tags, run.idempotency_key) == ('{"cents":4}', 3, ("eu", "vip"), "k")
    refused = await browser.post(f"{page}/submit", page, 422, json='{"cents": ')
    assert "is no JSON" in refused.text
    assert "{&#34;cents&#34;: " in refused.text, "what was typed is still there"
    await browser.post(f"{page}/submit", page, 422, json="[]")
    await browser.post(f"{page}/submit", page, 422, json="{}", delay="soon")
    assert (await client.runs())[1] == 1


@pytest.mark.parametrize("path", ["cancel", "retry", "rerun"])
async def test_a_form_without_the_sessions_token_is_refused(client: Client, browser: Browser, path: str) -> None:
    run = await client.submit(shop, {})
    await browser.get(f"/runs/{run.id}")
    for fields in ({}, {"csrf": ""}, {"csrf": "x" * 32}, {"csrf": "\u00e4"}):
        answer = await browser.http.post(f"/runs/{run.id}/{path}", data=fields)
        assert answer.status_code == 403, answer.text
        assert "CSRF" in answer.text
    browser.http.cookies.clear()
    page = await browser.get(f"/runs/{run.id}")
    token = re.search(r'name="csrf" value="([^"]+)"', page)
    assert token
    browser.http.cookies.clear()
    assert (await browser.http.post(f"/runs/{run.id}/{path}", data={"csrf": token[1]})).status_code == 403
    assert (await client.status(run.id)).status == "pending"
    assert await audits(client, run.id) == []


async def test_an_action_is_no_link(client: Client, browser: Browser) -> None:
    run = await client.submit(shop, {})
    assert (await browser.http.get(f"/runs/{run.id}/cancel")).status_code == 405
