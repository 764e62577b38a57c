"""The API as a program sees it: answers, scopes, problems, streams, and a document that leaves nothing out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.routing import Mount, Route

from redisflow import Client
from redisflow.web import WebOptions
from redisflow.web.access import Tokens
from redisflow.web.api.endpoints import ENDPOINTS, FIGURES
from redisflow.web.api.openapi import document
from redisflow.web.api.schemas import Problem
from tests.web.conftest import READER, WRITER, Open, Stream, audits, ended, shop, worker

V1 = "/api/v1"


def problem(answer: httpx.Response, status: int) -> Problem:
    """What a refusal says, in the form of RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found = Problem.model_validate(answer.json())
    assert found.status == status
    assert found.type.startswith("urn:redisflow:problem:")
    return found


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
async def registered(client: Client) -> None:
    await client.backend.register_plan(shop.plan)


@pytest.mark.usefixtures("registered")
async def test_a_run_is_submitted_once_for_a_key(client: Client, http: httpx.AsyncClient) -> None:
    body = {
        "input": {"cents": 4},
        "priority": 3,
        "tags": ["eu"],
        "delay": "1h",
        "timeout": 7200,
        "metadata": {"who": "x"},
    }
    first = await http.post(f"{V1}/workflows/shop/runs", json=body, headers={"idempotency-key": "k-1"})
    again = await http.post(f"{V1}/workflows/shop/runs", json=body, headers={"idempotency-key": "k-1"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {"runId": first.json()["runId"], "isNew": False}
    run = await client.status(first.json()["runId"])
    assert (run.input, run.priority, run.tags, run.timeout) == ('{"cents":4}', 3, ("eu",), 7_200_000_000)
    assert run.available_at - run.created_at == 3_600_000_000
    assert [audit["via"] for audit in await audits(client, run.run_id)] == ["api"]


async def test_a_result_is_waited_for(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {"cents": 4, "name": "ada"})
    soon = await http.get(f"{V1}/runs/{run.id}/result", params={"wait": "10ms"})
    assert (soon.status_code, soon.json()) == (202, {"runId": run.id, "status": "pending"})
    waiting = asyncio.create_task(http.get(f"{V1}/runs/{run.id}/result", params={"wait": "30s"}))
    async with worker(client):
        answer = await waiting
    assert answer.json() == {"runId": run.id, "status": "completed", "result": "4 cents ada plain"}
    failed = (await http.get(f"{V1}/runs/{await ended(client, fail='no')}/result")).json()
    assert (failed["status"], failed["error"]["name"], failed["error"]["step"]) == ("failed", "ValueError", "charge")
    other = await client.submit(shop, {})
    await client.cancel(other.id, "why")
    assert (await http.get(f"{V1}/runs/{other.id}/result")).json() == {
        "runId": other.id,
        "status": "cancelled",
        "reason": "why",
    }


async def test_runs_are_looked_for_by_id_and_time(client: Client, http: httpx.AsyncClient) -> None:
    runs = [await client.submit(shop, {}, tags=["eu"] if n % 2 else []) for n in range(6)]
    created = (await client.status(runs[2].id)).created_at
    first = (await http.get(f"{V1}/runs", params={"startUs": created, "tag": "eu", "limit": 1})).json()
    assert [run["runId"] for run in first["runs"]] == [runs[5].id]
    assert "total" not in first
    rest = (
        await http.get(f"{V1}/runs", params={"startUs": created, "tag": "eu", "cursor": first["cursor"]})
    ).json()  # fmt: skip
    assert [run["runId"] for run in rest["runs"]] == [runs[3].id]
    assert (rest["lookedAt"], rest["among"], "cursor" in rest) == (2, 2, False)
    older = (await http.get(f"{V1}/runs", params={"endUs": created})).json()["runs"]
    assert [run["runId"] for run in older] == [run.id for run in reversed(runs[:3])]
    exact = (await http.get(f"{V1}/runs", params={"idPrefix": runs[0].id})).json()["runs"]
    assert [run["runId"] for run in exact] == [runs[0].id]
    refused = await http.get(f"{V1}/runs", params={"startUs": 1, "offset": 5})
    assert (refused.status_code, "cursor" in refused.json()["detail"]) == (422, True)


async def test_states_lists_and_logs(client: Client, http: httpx.AsyncClient) -> None:
    run_id = await ended(client, name="ada")
    detail = (await http.get(f"{V1}/runs/{run_id}")).json()
    assert detail["run"]["status"] == "completed"
    assert {step["stepId"] for step in detail["steps"]} == {"price", "charge", "wrap", "ship"}
    await client.submit(shop, {}, tags=["eu", "b"])
    listed = (
        await http.get(f"{V1}/runs", params={"status": "pending,running", "tag": "eu", "workflow": "shop"})
    ).json()
    assert (listed["total"], listed["runs"][0]["tags"]) == (1, ["eu", "b"])
    assert (await http.get(f"{V1}/runs?limit=1&offset=1")).json()["runs"][0]["runId"] == run_id
    logs = (await http.get(f"{V1}/runs/{run_id}/logs", params={"step": "price"})).json()["logs"]
    assert [(line["stream"], line["message"]) for line in logs] == [("stdout", "price of ada")]
    assert (await http.get(f"{V1}/runs/{run_id}/logs", params={"attempt": 2})).json() == {"logs": []}
    assert [flow["slug"] for flow in (await http.get(f"{V1}/workflows")).json()["workflows"]] == ["shop"]
    assert (await http.get(f"{V1}/queues")).json()["queues"][0]["due"] == 1
    assert (await http.get(f"{V1}/workers")).json()["totalRunningSteps"] == 0


async def test_cancel_retry_and_rerun(client: Client, http: httpx.AsyncClient) -> None:
    run_id = await ended(client, fail="no")
    assert (await http.post(f"{V1}/runs/{run_id}/retry", json={})).json() == {"scheduledSteps": 1}
    assert (await http.post(f"{V1}/runs/{run_id}/cancel", json={"reason": "r"})).json() == {
        "cancelled": True,
        "status": "cancelled",
    }
    made = await http.post(f"{V1}/runs/{run_id}/rerun", json={"fromStep": "charge", "input": {"cents": 1}})
    assert made.status_code == 201
    assert (await client.status(made.json()["runId"])).input == '{"cents":1}'
    assert [audit["action"] for audit in await audits(client, run_id)] == ["retry", "cancel", "rerun"]


async def test_figures_and_errors(client: Client, http: httpx.AsyncClient) -> None:
    run_id = await ended(client, fail="no")
    for figure in FIGURES:
        answer = await http.get(f"{V1}/analytics/{figure}", params={"workflow": "shop"})
        FIGURES[figure].model_validate(answer.json())
    assert (await http.get(f"{V1}/analytics/success_rate")).json()["failedRuns"] == 1
    assert (await http.get(f"{V1}/analytics/throughput", params={"endUs": 5, "startUs": 0})).json()["runsFailed"] == 0
    listed = (await http.get(f"{V1}/errors", params={"grouping": "portable"})).json()
    detail = (
        await http.get(f"{V1}/errors/{listed['errors'][0]['fingerprint']}", params={"grouping": "portable"})
    ).json()
    assert {seen["runId"] for seen in detail["occurrences"]} == {run_id}


async def test_events_come_as_json_lines_and_go_on_where_a_reader_stopped(
    client: Client, http: httpx.AsyncClient
) -> None:
    run_id = await ended(client)
    answer = await http.get(f"{V1}/runs/{run_id}/events")
    assert answer.headers["content-type"] == "application/x-ndjson"
    found = lines(answer.text)
    wires = await client.backend.load_wire_events(run_id)
    assert [event["eventId"] for event in found] == [wire["eventId"] for wire in wires]
    rest = await http.get(f"{V1}/runs/{run_id}/events", headers={"last-event-id": found[4]["streamId"]})
    assert lines(rest.text) == found[5:]
    assert (await http.get(f"{V1}/runs/{run_id}/events", params={"after": found[-1]["streamId"]})).text == ""


async def test_events_are_followed_to_the_end_of_the_run(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {})
    following = asyncio.create_task(http.get(f"{V1}/runs/{run.id}/events", params={"follow": "true"}))
    async with worker(client):
        found = lines((await asyncio.wait_for(following, 30)).text)
    assert found[0]["type"] == "RunSubmitted"
    assert found[-1]["type"] == "WorkflowCompleted"


async def test_server_sent_events_end_with_the_run_and_tell_a_browser_to_stay_away(
    client: Client, http: httpx.AsyncClient
) -> None:
    run = await client.submit(shop, {})
    path, ids = f"{V1}/runs/{run.id}/events", []
    async with Stream(http.app, path) as stream, worker(client):  # type: ignore[attr-defined]
        while (found := await stream.next("message", "end"))["event"] == "message":
            ids.append(found["id"])
    assert len(ids) == len(set(ids)) == len(await client.backend.load_wire_events(run.id))
    again = await http.get(path, headers={"accept": "text/event-stream", "last-event-id": ids[-1]})
    assert again.status_code == 204


async def test_scopes(client: Client, open_app: Open, tokens: Tokens) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    run = await client.submit(shop, {})

    def bearer(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    for headers in ({}, bearer("x" * 20), bearer(""), {"authorization": f"Basic {WRITER}"}):
        answer = await http.get(f"{V1}/runs", headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await http.get(f"{V1}/runs", headers=bearer(READER))).status_code == 200
    problem(await http.post(f"{V1}/runs/{run.id}/cancel", json={}, headers=bearer(READER)), 403)
    assert (await client.status(run.id)).status == "pending"
    assert (await http.post(f"{V1}/runs/{run.id}/cancel", json={}, headers=bearer(WRITER))).json()["cancelled"]
    assert [audit["user"] for audit in await audits(client, run.id)] == ["wanda"]


@pytest.mark.usefixtures("registered")
async def test_a_page_of_another_origin_cannot_write(client: Client, http: httpx.AsyncClient) -> None:
    path, foreign = f"{V1}/workflows/shop/runs", {"origin": "https://evil.example"}
    problem(await http.post(path, json={}, headers=foreign), 403)
    problem(await http.post(path, content="{}", headers={"content-type": "text/plain"}), 415)
    problem(await http.post(path, data={"input": "1"}), 415)
    assert (await client.runs())[1] == 0
    assert (await http.post(path, json={"input": {}}, headers={"origin": "http://localhost"})).status_code == 201


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"inptu": 1}, "inptu"), ({"priority": 900}, "priority"), ({"priority": "high"}, "priority"), ({"tags": "eu"}, "tags"),
        ({"input": [1]}, "$"), ([], "$"), ("{", "$"), ('{"input": NaN}', "$"), ("[" * 100_000, "$"), (b"\xff", "$"),
    ],
)  # fmt: skip
async def test_a_wrong_body_names_what_is_wrong(client: Client, http: httpx.AsyncClient, body: Any, path: str) -> None:
    raw = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = await http.post(f"{V1}/workflows/shop/runs", content=raw, headers={"content-type": "application/json"})
    assert [error["path"] for error in problem(answer, 422).errors or []] == [path]
    assert (await client.runs())[1] == 0


@pytest.mark.usefixtures("registered")
async def test_problems(client: Client, http: httpx.AsyncClient) -> None:
    run = await client.submit(shop, {})
    for answer, status in (
        (await http.get(f"{V1}/runs/none"), 404),
        (await http.get(f"{V1}/runs/none/result"), 404),
        (await http.get(f"{V1}/runs/none/events"), 404),
        (await http.get(f"{V1}/runs/none/logs"), 404),
        (await http.get(f"{V1}/nothing"), 404),
        (await http.delete(f"{V1}/runs/{run.id}"), 404),
        (await http.get(f"{V1}/analytics/none"), 404),
        (await http.post(f"{V1}/workflows/none/runs", json={}), 404),
        (await http.post(f"{V1}/runs/{run.id}/retry", json={}), 409),
        (await http.post(f"{V1}/runs/{run.id}/rerun", json={"fromStep": "price"}), 409),
        (await http.post(f"{V1}/runs/{run.id}/rerun", json={}), 422),
        (await http.post(f"{V1}/workflows/shop/runs", json={"input": {}, "runId": run.id}), 409),
        (await http.post(f"{V1}/workflows/shop/runs", json={"input": {"a": "x" * 1_048_576}}), 413),
        (await http.post(f"{V1}/workflows/shop/runs", json={"input": "x" * 1_200_000}), 413),
        (await http.post(f"{V1}/workflows/shop/runs", json={"delay": "soon"}), 422),
        (await http.get(f"{V1}/runs?limit=x"), 422),
        (await http.get(f"{V1}/runs?stat=x"), 422),
        (await http.get(f"{V1}/runs?status=odd"), 422),
        (await http.get(f"{V1}/runs/{run.id}/result?wait=soon"), 422),
        (await http.get(f"{V1}/runs/{run.id}/events?follow=maybe"), 422),
        (await http.get(f"{V1}/runs/{run.id}/events?after=x"), 422),
        (await http.get(f"{V1}/errors?grouping=odd"), 422),
        (await http.get(f"{V1}/errors/none"), 422),
    ):
        problem(answer, status)
    assert (await client.runs())[1] == 1
    quoting = await http.post(f"{V1}/workflows/shop/runs", json={"input": "x" * 500_000})
    problem(quoting, 422)
    assert len(quoting.text) < 5_000, "an answer does not send back what was sent"


def test_the_document_validates_and_has_every_route() -> None:
    validate(document())
    described = {(method.upper(), path) for path, operations in document()["paths"].items() for method in operations}
    assert described == {(row.method, row.path) for row in ENDPOINTS}
    names = [
        operation["operationId"] for operations in document()["paths"].values() for operation in operations.values()
    ]
    assert len(names) == len(set(names))


async def test_the_document_is_of_the_routes_that_are_served(http: httpx.AsyncClient) -> None:
    (mount,) = [route for route in http.app.routes if isinstance(route, Mount) and route.path == V1]  # type: ignore[attr-defined]
    served = {
        (method, route.path) for route in mount.routes if isinstance(route, Route)
        for method in (route.methods or ()) if method != "HEAD" and "path:path" not in route.path and route.path != "/openapi.json"
    }  # fmt: skip
    paths = (await http.get(f"{V1}/openapi.json")).json()["paths"]
    assert served == {(method.upper(), path) for path, operations in paths.items() for method in operations}
