"""The soak itself: a short one, with every line of its report in order."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import server_binary
from tests.faults.harness import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("servers", [[], ["--cluster"]], ids=["standalone", "cluster"])
def test_a_short_soak_finds_nothing(tmp_path: Path, servers: list[str]) -> None:
    report = tmp_path / "report.json"
    command = [
        sys.executable,
        "-m",
        "bench.soak",
        "--minutes",
        "0.3",
        "--seed",
        "11",
        "--workers",
        "2",
        "--json",
        str(report),
    ]
    soak = subprocess.Popen(
        [*command, *servers, "--server", server_binary()], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        said, _ = soak.communicate(timeout=110)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(soak.pid, signal.SIGKILL)  # what it started has its group
    assert soak.returncode == 0, said
    found = json.loads(report.read_text())
    assert found["problems"] == []
    assert found["runs"] >= found["acknowledged"] > 50
    assert found["executions"] >= found["stepsCompleted"] > 100
    assert found["faults"] >= 3
    assert found["recoverySeconds"]["max"] >= found["recoverySeconds"]["p50"] >= 0
