"""The demo does what it says: a worker is killed, its step rescued, the run completes, nothing is left."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import environment, run_process, service
from tests.cli.test_services import servers_of
from tests.conftest import until


@pytest.mark.timeout(120)
def test_demo(tmp_path: Path) -> None:
    env = environment()
    done = run_process("demo", cwd=tmp_path, env=env, timeout=90)
    assert done.code == 0, done.out + done.err
    assert "SIGKILL to worker" in done.out
    assert "the reclaimer takes parse" in done.out
    assert "again (attempt 2)" in done.out
    assert "Traceback" not in done.out + done.err
    rescued = re.search(r"rescued (\S+): (worker \d) was killed, .* (worker \d) began it again", done.out)
    assert rescued is not None
    assert rescued[2] != rescued[3]
    found = re.search(r"run (\S+) completed", done.out)
    assert found is not None
    shown = run_process("--namespace", "demo", "show", found[1], cwd=tmp_path, env=env)
    assert shown.code == 0
    assert "attempt 2" in shown.out
    assert "taken back from" in shown.out
    verified = run_process("--namespace", "demo", "verify", found[1], cwd=tmp_path, env=env)
    assert verified.code == 0, verified.out
    until(lambda: not servers_of(tmp_path), 15)


@pytest.mark.timeout(60)
def test_control_c_ends_all_of_it(tmp_path: Path) -> None:
    with service("demo", cwd=tmp_path, env=environment()) as running:
        running.expect("running", 40)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    assert "Traceback" not in running.text
    until(lambda: not servers_of(tmp_path), 15)


@pytest.mark.timeout(60)
def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    with service("demo", cwd=tmp_path, env=environment()) as running:
        running.expect("running", 40)
        running.signal(signal.SIGKILL)
        running.wait()
    until(lambda: not servers_of(tmp_path), 30)
