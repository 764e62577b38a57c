"""A run from submit to its history, as the command line shows it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.inspect import queue_depths
from redisflow.client import Client
from redisflow.model.states import StepDefinition, WorkflowRegistration
from redisflow.settings import Settings
from tests.cli.conftest import Call, Service

ORDER = '{"cents": 5}'
FAILS = '{"cents": 5, "fail": true}'


def test_submit_and_wait(rf: Call, shop_worker: Service) -> None:
    done = rf("submit", "shop", ORDER, "--wait")
    assert done.code == 0
    assert done.json == "10 for 1"
    assert done.err.startswith("run ")


def test_submit_prints_the_run_id(rf: Call, registered: None) -> None:
    first = rf("submit", "shop", ORDER, "--key", "k", "--tag", "eu", "--tag", "b", "--priority", "7")
    run_id = first.out.strip()
    assert first.code == 0
    assert rf("submit", "shop", ORDER, "--key", "k").out.strip() == run_id
    again = rf("submit", "shop", ORDER, "--key", "k", "--json").json
    assert again == {"runId": run_id, "isNew": False}
    run = rf("show", run_id, "--json").json["run"]
    assert (run["tags"], run["priority"], run["idempotencyKey"]) == (["eu", "b"], 7, "k")
    taken = rf("submit", "shop", ORDER, "--run-id", run_id)
    assert "is in use" in taken.error
    assert taken.code == 2


def test_input_of_file_and_stdin(rf: Call, shop_worker: Service, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(ORDER)
    assert rf("submit", "shop", "@order.json", "--wait").json == "10 for 1"
    assert rf("submit", "shop", "-", "--wait", stdin='{"cents": 1}').json == "2 for 1"
    (tmp_path / "bad.json").write_bytes(b"\xff")
    assert "is not UTF-8" in rf("submit", "shop", "@bad.json").error


def test_failed_run(rf: Call, shop_worker: Service) -> None:
    done = rf("submit", "shop", FAILS, "--wait", "--run-id", "f1")
    assert done.code == 1
    assert "run f1 failed in step 'stock': ValueError: no \\x1b[31mstock" in done.err
    assert "\x1b" not in done.err
    told = rf("submit", "shop", FAILS, "--wait", "--json", "--run-id", "f2")
    assert told.code == 1
    assert told.json["status"] == "failed"
    assert told.json["error"] == {"name": "ValueError", "message": "no \x1b[31mstock", "step": "stock"}
    shown = rf("show", "f1", "--traceback")
    assert "raise ValueError" in shown.out
    assert "\x1b" not in shown.out
    assert "raise ValueError" not in rf("show", "f1").out


def test_wait_has_an_end(rf: Call, registered: None) -> None:
    done = rf("submit", "shop", ORDER, "--wait-timeout", "50ms", "--json")
    assert done.code == 1
    assert done.json["status"] == "live"
    assert "is still pending" in done.err


def test_show_is_a_tree_in_the_order_of_the_plan(rf: Call, shop_worker: Service) -> None:
    rf("submit", "shop", ORDER, "--wait", "--run-id", "r1")
    lines = rf("show", "r1").out.splitlines()
    assert lines[0].split() == ["shop", "r1", "completed"]
    tree = [line.strip("│├└─ ") for line in lines[lines.index("steps") + 1 :]]
    assert [line.split()[0] for line in tree] == ["price", "bill", "stock"] or [line.split()[0] for line in tree] == [
        "price",
        "stock",
        "bill",
    ]
    assert any("also needs" in line for line in tree)
    told = rf("show", "r1", "--json").json
    assert [step["stepId"] for step in told["steps"]] == ["price", "stock", "bill"]
    assert told["end"]["type"] == "WorkflowCompleted"


def test_show_has_steps_that_have_not_begun(rf: Call, registered: None) -> None:
    run_id = rf("submit", "shop", ORDER, "--delay", "1h").out.strip()
    out = rf("show", run_id).out
    assert "bill  pending" in out
    assert "starts" in out


def test_events(rf: Call, shop_worker: Service) -> None:
    rf("submit", "shop", ORDER, "--wait", "--run-id", "r1")
    lines = rf("events", "r1").out.splitlines()
    assert "RunSubmitted" in lines[0]
    assert "WorkflowCompleted" in lines[-1]
    wire = [json.loads(line) for line in rf("events", "r1", "--json").out.splitlines()]
    assert [event["type"] for event in wire][:2] == ["RunSubmitted", "StepScheduled"]
    assert len(wire) == len(lines)
    followed = rf("events", "r1", "--json", "--follow").out.splitlines()
    assert [json.loads(line)["eventId"] for line in followed] == [event["eventId"] for event in wire]
    kinds = ("--type", "stepcompleted", "--type", "WorkflowStarted")
    only = rf("events", "r1", *kinds, "--json").out.splitlines()
    assert {json.loads(line)["type"] for line in only} == {"StepCompleted", "WorkflowStarted"}
    assert len(only) == 4


def test_runs(rf: Call, registered: None) -> None:
    ids = [rf("submit", "shop", ORDER, "--tag", tag).out.strip() for tag in ("a", "a", "b")]
    rf("cancel", ids[0])
    out = rf("runs").out
    assert all(run_id in out for run_id in ids)
    assert out.endswith("3 of 3 runs\n")
    told = rf("runs", "--tag", "a", "--status", "pending", "--json").json
    assert (told["total"], [run["runId"] for run in told["runs"]]) == (1, [ids[1]])
    page = rf("runs", "--limit", "1", "--offset", "1", "--json").json
    assert (page["total"], [run["runId"] for run in page["runs"]]) == (3, [ids[1]])
    assert rf("runs", "--workflow", "nosuch").out == "0 of 0 runs\n"


def test_ids_are_whole_in_a_pipe(rf: Call, registered: None) -> None:
    run_id = "r" * 150
    rf("submit", "shop", ORDER, "--run-id", run_id, "--tag", "t" * 60)
    assert run_id in rf("runs").out


def test_cancel(rf: Call, registered: None) -> None:
    ids = [rf("submit", "shop", ORDER).out.strip() for _ in range(2)]
    done = rf("cancel", *ids, "nosuch", "--reason", "a \x1b[31mreason")
    assert done.code == 1
    assert done.out == "".join(f"{run_id} cancelled\n" for run_id in ids)
    assert "run 'nosuch' does not exist" in done.error
    again = rf("cancel", ids[0], "--json")
    assert again.json == [{"runId": ids[0], "cancelled": False, "status": "cancelled"}]
    assert again.code == 0
    shown = rf("show", ids[0]).out
    assert "a \\x1b[31mreason" in shown


def test_workflows(rf: Call, registered: None) -> None:
    assert "price, stock, bill" in rf("workflows").out
    assert [record["slug"] for record in rf("workflows", "--json").json] == ["shop"]


def test_no_workflow(rf: Call) -> None:
    assert "no workflow is registered" in rf("workflows").out
    assert rf("queues").out == "every queue is empty\n"


def test_queues(rf: Call, registered: None) -> None:
    for options in ([], ["--delay", "1h"], ["--priority", "9"]):
        rf("submit", "shop", ORDER, *options)
    high, normal = rf("queues", "--json").json
    assert (high["queue"], high["priority"], high["due"], high["delayed"]) == ("shop", 9, 2, 0)
    assert (normal["priority"], normal["due"], normal["delayed"], normal["running"]) == (0, 2, 2, 0)
    assert normal["oldestDueUs"] > 0
    assert "oldest due" in rf("queues").out


async def test_queues_count_what_runs(rf: Call, registered: None, settings: Settings) -> None:
    run_id = (await asyncio.to_thread(rf, "submit", "shop", ORDER, "--priority", "3")).out.strip()
    backend = RedisBackend(settings)
    await backend.initialize()
    await backend.call(
        "claim", backend.partition(run_id), run_id=run_id, step="price", body=b"\xa2wi\xa1w", pairs_in_body=1
    )
    (depth,) = await queue_depths(backend)
    await backend.close()
    assert (depth.queue, depth.level, depth.due, depth.running) == ("shop", 3, 1, 1)


def test_verify(rf: Call, shop_worker: Service) -> None:
    rf("submit", "shop", ORDER, "--wait", "--run-id", "r1")
    done = rf("verify")
    assert done.out == "1 runs checked, 0 violations\n"
    assert done.code == 0
    assert rf("verify", "r1", "--json").json == {
        "runsChecked": 1, "runsTold": 0, "runsMoving": 0, "violations": [], "repaired": {},
    }  # fmt: skip


async def test_verify_finds_and_repairs(rf: Call, registered: None, settings: Settings) -> None:
    run_id = (await asyncio.to_thread(rf, "submit", "shop", ORDER)).out.strip()
    backend = RedisBackend(settings)
    await backend.initialize()
    await backend.client.zrem(backend.keys_of(run_id).scheduled("shop", 0), f"{run_id}|price")
    await backend.close()
    found = await asyncio.to_thread(rf, "verify", "--repair")
    assert found.code == 1
    assert f"{run_id}  queue" in found.out
    assert f"{run_id}  repaired" in found.out
    assert (await asyncio.to_thread(rf, "verify")).code == 0


async def test_nested_steps(rf: Call, settings: Settings) -> None:
    steps = (
        StepDefinition(id="load/eu", name="eu", dependencies=(), export_output=False),
        StepDefinition(id="load/us", name="us", dependencies=("load/eu",), export_output=True),
    )
    async with Client(settings=settings) as client:
        backend = client.backend
        await backend.register_workflow(WorkflowRegistration(slug="nested", name="Nested", steps=steps))
        run_id = (await client.submit("nested", run_id="n1")).id
        for step in steps:
            claim = await backend.claim_step(run_id, step.id, "w-1")
            assert claim is not None
            line = {"timestamp": 5, "stream": "stdout", "message": f"in {step.id}", "attempt_number": 1}
            await backend.save_step_logs("nested", run_id, step.id, [line])
            await backend.complete_step(claim, "1", export_output=step.export_output)
    assert "load/eu, load/us" in (await asyncio.to_thread(rf, "workflows")).out
    shown = (await asyncio.to_thread(rf, "show", run_id)).out
    assert "load/eu  completed" in shown
    logs = (await asyncio.to_thread(rf, "logs", run_id, "load/us", "--json")).out.splitlines()
    assert [json.loads(line)["message"] for line in logs] == ["in load/us"]
    child = (await asyncio.to_thread(rf, "rerun", run_id, "--from", "load/us")).out.strip()
    assert "load/us  scheduled" in (await asyncio.to_thread(rf, "show", child)).out
    figures = (await asyncio.to_thread(rf, "stats", "--step", "load/us", "--json")).json
    assert figures["stepDuration"]["count"] == 1
