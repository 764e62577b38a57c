"""A person's mistake is one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Call, environment, run_process

ORDER = '{"cents": 1}'
DEAD = "redis://127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit"], "Missing argument 'WORKFLOW'"),
        (["nosuch"], "No such command 'nosuch'"),
        (["submit", "shop", "{bad"], "INPUT is invalid: $: is not JSON"),
        (["submit", "shop", "NaN"], "NaN is no number in JSON"),
        (["submit", "shop", "@missing.json"], "cannot read missing.json: No such file"),
        (["submit", "shop", "--priority", "101"], "101 is not in the range"),
        (["submit", "shop", "--delay", "soon"], "'soon' is not a duration"),
        (["submit", "shop", "--delay", "-1s"], "is not a duration"),
        (["runs", "--limit", "0"], "0 is not in the range"),
        (["runs", "--status", "odd"], "'odd' is not one of"),
        (["events", "r", "--type", "odd"], "'odd' is not one of"),
        (["worker"], "Missing argument"),
        (["worker", "nosuch.py"], "there is no file nosuch.py"),
        (["worker", "nosuch"], "there is no module 'nosuch'"),
        (["worker", "bad-name.py"], "there is no file bad-name.py"),
        (["worker", "json", "--concurrency", "0"], "0 is not in the range"),
        (["dev", "nosuch.py"], "there is no file nosuch.py"),
        (["dev", "nosuch"], "there is no module 'nosuch'"),
        (["runs", "--url", "redis://[::1"], "Invalid IPv6 URL"),
        (["runs", "--namespace", "a b"], "REDISFLOW_NAMESPACE"),
        (["init", "a-b.py"], "is no name of a Python module"),
        (["init", "nowhere/flow.py"], "cannot write nowhere/flow.py"),
    ],
)  # fmt: skip
def test_wrong_call(rf: Call, arguments: list[str], message: str) -> None:
    done = rf(*arguments)
    assert message in done.error
    assert done.code == 2
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["submit", "nosuch"], "workflow 'nosuch' is not registered"),
        (["submit", "shop", ORDER, "--delay", "4000d"], "from 0 to 10 years"),
        (["submit", "shop", '{"cents": 1, "note": "' + "x" * 2_000_000 + '"}'], "over the limit"),
        (["submit", "shop", ORDER, "--run-id", "a b"], "run_id='a b' is not allowed"),
        (["submit", "shop", '{"cents": "x"}'], "cents"),
        (["submit", "shop"], "input of workflow 'shop'"),
        (["submit", "shop", ORDER, "--tag", "a b"], "tags='a b' is not allowed"),
        (["submit", "shop", ORDER, "--key", ""], "idempotency_key"),
        (["show", "a b"], "run_id='a b' is not allowed"),
        (["events", "a b"], "run_id='a b' is not allowed"),
        (["runs", "--workflow", "a b"], "workflow_slug='a b' is not allowed"),
        (["cancel", "\x1b[31m"], "is not allowed"),
    ],
)  # fmt: skip
def test_refused_by_the_engine(rf: Call, registered: None, arguments: list[str], message: str) -> None:
    done = rf(*arguments)
    assert message in done.error
    assert done.code == (1 if arguments[0] == "cancel" else 2)
    assert "\x1b" not in done.err


@pytest.mark.parametrize(
    "arguments", [["show", "r"], ["events", "r"], ["events", "r", "-f"], ["cancel", "r"], ["verify", "r"]]
)  # fmt: skip
def test_unknown_run(rf: Call, arguments: list[str]) -> None:
    done = rf(*arguments)
    assert "run 'r' does not exist" in done.error
    assert done.code == 1


@pytest.mark.parametrize("command", ["runs", "queues", "workflows", "verify"])
def test_unreachable_server(rf: Call, command: str) -> None:
    done = rf(command, "--url", DEAD)
    assert "cannot use Redis at redis://127.0.0.1:1/0" in done.error
    assert done.code == 1


def test_password_is_never_shown(rf: Call) -> None:
    done = rf("runs", "--url", "redis://me:secret@127.0.0.1:1/0")
    assert "secret" not in done.err + done.out


def test_no_server_in_this_folder(rf: Call, tmp_path: Path) -> None:
    done = run_process("runs", cwd=tmp_path, env=environment())
    assert "no server: set REDISFLOW_URL" in done.error
    assert done.code == 1
    assert not (tmp_path / ".redisflow").exists(), "a question starts no server"


def test_wrong_setting(rf: Call) -> None:
    done = rf("runs", REDISFLOW_STALE_AFTER="soon")
    assert "REDISFLOW_STALE_AFTER: 'soon' is not a duration" in done.error
    assert done.code == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n", "holds no Workflow or @task at module level"),
        ("import nosuchmodule\n", "ModuleNotFoundError: No module named 'nosuchmodule' ({path}:1)"),
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero ({path}:3)"),
        ("def f(:\n", "invalid syntax ({path}:1)"),
        ("raise SystemExit('bye')\n", "SystemExit: bye ({path}:1)"),
        ("import json\njson.loads('{')\n", "JSONDecodeError"),
        (
            "from redisflow import Workflow\nw = Workflow('w')\n@w.step\ndef a(nosuch): ...\n",
            "nosuch",
        ),
        ("from redisflow import Workflow\nw = Workflow('w')\n", "w"),
    ],
)
def test_module_that_does_not_load(rf: Call, tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / f"broken_{abs(hash(source))}.py"
    path.write_text(source)
    done = rf("worker", str(path))
    assert message.format(path=path) in done.error
    assert done.code == 2


def test_two_workflows_of_one_slug(rf: Call, tmp_path: Path, flow: Path) -> None:
    other = tmp_path / "other_shop.py"
    other.write_text(flow.read_text().replace("cents * 2", "cents * 3"))
    done = rf("worker", str(flow), str(other))
    assert "workflow 'shop' is declared in" in done.error
    assert done.code == 2


def test_file_named_like_a_loaded_module(rf: Call, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("x = 1")
    done = rf("worker", str(tmp_path / "json.py"))
    assert "that name belongs to" in done.error


def test_init_overwrites_nothing(rf: Call, tmp_path: Path) -> None:
    assert rf("init").code == 0
    (tmp_path / "flow.py").write_text("mine")
    done = rf("init")
    assert "flow.py exists already" in done.error
    assert done.code == 2
    assert (tmp_path / "flow.py").read_text() == "mine"
