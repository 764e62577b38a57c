"""`worker`, `reclaimer` and `dev` as processes: they serve, end cleanly, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cli.conftest import Call, Service, environment, run_process, service
from tests.conftest import until

ORDER = '{"cents": 5}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_worker_drains_on_a_signal(rf: Call, shop_worker: Service, number: int) -> None:
    assert rf("submit", "shop", ORDER, "--wait").code == 0
    shop_worker.signal(number)
    assert shop_worker.wait() == 0
    assert "stopped" in shop_worker.text
    assert "Traceback" not in shop_worker.text


def test_worker_of_a_dotted_module(flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with service("worker", flow.stem, "--queues", "shop,more", "--concurrency", "3", cwd=tmp_path, env=env) as worker:
        worker.expect("serves shop, more with 3 slots")
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_json_logs(flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with service("worker", str(flow), "--log-format", "json", cwd=tmp_path, env=env) as worker:
        worker.expect('"logger": "redisflow.worker"')
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0


@pytest.mark.parametrize("name", ["worker", "reclaimer"])
def test_a_child_ends_with_its_parent(name: str, flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    sources = [str(flow)] if name == "worker" else []
    with service(name, *sources, "--leash", cwd=tmp_path, env=env, stdin=subprocess.PIPE) as running:
        running.expect("slots" if name == "worker" else "a round every")
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_reclaimer(rf: Call, tmp_path: Path, env: dict[str, str], number: int) -> None:
    with service("reclaimer", cwd=tmp_path, env=env) as running:
        running.expect("a round every")

        def ticks() -> bool:
            checks = {check["name"]: check for check in rf("doctor", "--json").json}
            return checks["reclaimer"]["verdict"] == "ok"

        until(ticks)
        running.signal(number)
        assert running.wait() == 0
    assert "Traceback" not in running.text


def test_follow_ends_with_control_c(rf: Call, registered: None, tmp_path: Path, env: dict[str, str]) -> None:
    run_id = rf("submit", "shop", ORDER).out.strip()
    with service("events", run_id, "--follow", cwd=tmp_path, env=env) as running:
        running.expect("StepScheduled")
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    assert "Traceback" not in running.text


def test_dev_serves_reloads_and_ends(rf: Call, flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with service("dev", str(flow), "--port", "0", cwd=tmp_path, env=env) as running:
        running.expect("slots")
        assert rf("submit", "shop", ORDER, "--wait").json == "10 for 1"
        running.expect("WorkflowCompleted")
        flow.write_text(flow.read_text().replace("cents * 2", "cents * 3"))
        running.expect("reloading")
        until(lambda: running.text.count("slots") == 2, 20)
        assert rf("submit", "shop", ORDER, "--wait").json == "15 for 1"
        flow.write_text("def broken(:\n")
        running.expect("waiting for a change")
        assert "invalid syntax" in running.text
        children = psutil.Process(running.process.pid).children()
        running.signal(signal.SIGINT)
        assert running.wait() == 0
    assert not any(child.is_running() for child in children)
    assert "Traceback" not in running.text


def test_nothing_is_left_of_a_killed_dev(flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with service("dev", str(flow), "--port", "0", cwd=tmp_path, env=env) as running:
        running.expect("slots")
        children = psutil.Process(running.process.pid).children()
        assert len(children) == 1
        running.signal(signal.SIGKILL)
        running.wait()
    until(lambda: not any(alive(child) for child in children), 10)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_first_steps_without_a_server_of_ones_own(tmp_path: Path) -> None:
    """What `init` says works as it stands, on the embedded server, and the history stays when nobody runs."""
    env = environment()
    written = run_process("init", cwd=tmp_path, env=env)
    assert "redisflow dev flow.py" in written.out
    with service("dev", "flow.py", "--port", "0", cwd=tmp_path, env=env) as running:
        running.expect("slots")
        done = run_process("submit", "hello", '{"name": "Ada"}', "--wait", cwd=tmp_path, env=env)
        assert done.json == "Hello, Ada! How are you, Ada?"
        running.signal(signal.SIGINT)
        assert running.wait() == 0
    listed = run_process("runs", cwd=tmp_path, env=env)
    assert listed.out.endswith("1 of 1 run\n")
    until(lambda: not servers_of(tmp_path), 15)


def servers_of(folder: Path) -> list[psutil.Process]:
    """Processes that run in the folder or have it in their command: servers, watchers, workers."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        told = [*(process.info["cmdline"] or ()), process.info["cwd"] or ""]
        if any(str(folder) in part for part in told) and process.pid != os.getpid():
            found.append(process)
    return found


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    """What makes `redisflow --help` answer at once, on any machine."""
    code = (
        "import sys\n"
        "from redisflow.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'redis', 'pydantic', 'jsonschema', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("[]\n")
