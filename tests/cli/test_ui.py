"""`ui` as a process and `dev` with it: where they serve, whom they refuse, and that they end though somebody watches."""

from __future__ import annotations

import re
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Service, service

TOKEN = "a-token-of-twenty-chars"


def address(running: Service) -> str:
    running.expect("dashboard at http")
    found = re.search(r"dashboard at (http://\S+?)[,;\s]", running.text)
    assert found
    return found[1]


def fetch(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_it_serves_pages_and_api_and_ends_while_somebody_watches(tmp_path: Path, env: dict[str, str]) -> None:
    with service("ui", "--port", "0", cwd=tmp_path, env=env) as running:
        url = address(running)
        assert url.startswith("http://127.0.0.1:")
        status, page = fetch(url)
        assert status == 200
        assert "<h1>Overview</h1>" in page
        assert fetch(f"{url}/api/v1/runs") == (200, '{"runs":[],"total":0}')
        with urllib.request.urlopen(f"{url}/live", timeout=20) as watched:
            assert watched.readline() == b"retry: 1000\n"
            running.signal(signal.SIGTERM)
            assert running.wait() == 0
        assert "Traceback" not in running.text


def test_another_address_needs_a_token_file_and_then_a_token(rf: Call, tmp_path: Path, env: dict[str, str]) -> None:
    refused = rf("ui", "--host", "0.0.0.0")
    assert refused.code == 2
    assert "--token-file" in refused.error
    (tmp_path / "tokens").write_text("ann nothing " + TOKEN)
    assert "line 1" in rf("ui", "--token-file", "tokens").error
    assert "cannot be read" in rf("ui", "--token-file", "none").error
    (tmp_path / "tokens").write_text(f"ann read {TOKEN}\n")
    with service("ui", "--host", "0.0.0.0", "--port", "0", "--token-file", "tokens", cwd=tmp_path, env=env) as running:
        url = address(running).replace("0.0.0.0", "127.0.0.1")
        assert fetch(f"{url}/api/v1/runs")[0] == 401
        assert fetch(f"{url}/api/v1/runs", authorization=f"Bearer {TOKEN}")[0] == 200
        running.signal(signal.SIGINT)
        assert running.wait() == 0
    assert TOKEN not in running.text


def test_a_port_that_is_taken_is_told(rf: Call, tmp_path: Path, env: dict[str, str]) -> None:
    with service("ui", "--port", "0", cwd=tmp_path, env=env) as running:
        port = address(running).rpartition(":")[2]
        refused = rf("ui", "--port", port)
    assert refused.code == 2
    assert f"cannot serve at 127.0.0.1, port {port}" in refused.error


def test_without_the_extra_it_says_what_to_install(rf: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "starlette" or name.startswith("redisflow.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "starlette", None)
    refused = rf("ui")
    assert refused.code == 2
    assert "pip install 'redisflow[web]'" in refused.error


def test_dev_has_a_dashboard(flow: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with service("dev", str(flow), "--port", "0", cwd=tmp_path, env=env) as running:
        url = address(running)
        running.expect("slots")
        assert "shop" in fetch(f"{url}/workflows")[1]
        running.signal(signal.SIGINT)
        assert running.wait() == 0
    assert "Traceback" not in running.text
