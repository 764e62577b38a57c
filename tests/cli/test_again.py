"""retry, resume and rerun, as a person calls them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Service, service

ORDER = '{"cents": 5}'
FAILS = '{"cents": 5, "fail": true}'
FLAKY = """
from pathlib import Path
from redisflow import Workflow

flaky = Workflow("flaky")


@flaky.step(export=True)
def only() -> str:
    if not Path("mended").exists():
        raise ValueError("broken")
    return "done"
"""


@pytest.fixture
def flaky_worker(tmp_path: Path, env: dict[str, str]) -> Iterator[Service]:
    (tmp_path / "flaky_flow.py").write_text(FLAKY)
    with service("worker", "flaky_flow.py", cwd=tmp_path, env=env) as running:
        running.expect("slots")
        yield running


def test_retry(rf: Call, flaky_worker: Service, tmp_path: Path) -> None:
    assert rf("submit", "flaky", "--wait", "--run-id", "f1").code == 1
    (tmp_path / "mended").touch()
    done = rf("retry", "f1", "nosuch", "--reason", "mended \x1b[31m")
    assert done.code == 1
    assert done.out.startswith("f1 retried, ")
    assert "run 'nosuch' does not exist" in done.error
    assert "WorkflowCompleted" in rf("events", "f1", "--follow").out
    assert "mended \\x1b[31m" in rf("events", "f1").out
    again = rf("retry", "f1", "a b", "--json")
    assert again.code == 1
    assert "run f1 is completed: only a failed run can be retried" in again.json[0]["error"]
    assert "run_id='a b' is not allowed" in again.json[1]["error"]
    assert len(again.err.splitlines()) == 2


def test_resume(rf: Call, registered: None) -> None:
    run_id = rf("submit", "shop", ORDER).out.strip()
    assert rf("resume", run_id).out == f"{run_id} resumed, 0 completed, 3 left\n"
    assert rf("resume", run_id, "--json").json == [{"runId": run_id, "completedSteps": 0, "stepsLeft": 3}]
    rf("cancel", run_id)
    done = rf("resume", run_id)
    assert done.code == 1
    assert f"run {run_id} is cancelled" in done.error


def test_rerun(rf: Call, shop_worker: Service, tmp_path: Path) -> None:
    rf("submit", "shop", ORDER, "--wait", "--run-id", "r1")
    made = rf("rerun", "r1", "--from", "bill")
    child = made.out.strip()
    assert made.code == 0
    assert "WorkflowCompleted" in rf("events", child, "--follow").out
    done = rf("rerun", "r1", "--from", "price", "--input", '{"cents": 7}', "--wait")
    assert done.json == "14 for 1"
    assert done.err.startswith("run ")
    (tmp_path / "order.json").write_text('{"cents": 8}')
    assert rf("rerun", "r1", "--from", "price", "--input", "@order.json", "--wait").json == "16 for 1"
    told = rf("rerun", "r1", "--from", "price", "--input", "-", "--wait", "--json", stdin='{"cents": 9}').json
    assert (told["status"], told["result"]) == ("completed", "18 for 1")
    assert set(rf("rerun", "r1", "--from", "bill", "--json").json) == {"runId", "isNew"}
    failed = rf("rerun", "r1", "--from", "stock", "--input", FAILS, "--wait", "--json")
    assert failed.code == 1
    assert json.loads(failed.out)["status"] == "failed"


def test_rerun_is_refused_in_one_line(rf: Call, registered: None) -> None:
    run_id = rf("submit", "shop", ORDER).out.strip()
    for arguments, code, message in [
        ((run_id,), 2, "Missing option '--from'"),
        ((run_id, "--from", "bill"), 1, "has not ended"),
        (("nosuch", "--from", "bill"), 1, "run 'nosuch' does not exist"),
        ((run_id, "--from", "nosuch"), 2, "step 'nosuch' does not exist"),
        ((run_id, "--from", "bill", "--input", "{"), 2, "INPUT is invalid"),
        ((run_id, "--from", "bill", "--input", "null"), 2, "--input is null"),
        ((run_id, "--from", "\x1b"), 2, "step_id='\\x1b' is not allowed"),
    ]:
        done = rf("rerun", *arguments)
        assert message in done.error
        assert done.code == code, arguments
