"""top: one screen, its JSON, and the live view in a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Call, Service, run_process
from tests.conftest import until

ORDER = '{"cents": 5}'
FAILS = '{"cents": 5, "fail": true}'


def test_once(rf: Call, shop_worker: Service) -> None:
    for given in (ORDER, ORDER, FAILS):
        rf("submit", "shop", given, "--wait")
    rf("submit", "shop", ORDER, "--delay", "1h")
    out = rf("top", "--once").out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}
    assert rows["runs"][:5] == ["4", "2", "1", "0", "66.7%"]
    assert rows["steps"][:3] == ["8", "7", "1"]
    assert float(rows["runs"][5].removesuffix("/s")) > 0
    assert rows["shop"][:4] == ["0", "0", "2", "0"]
    assert "0/100" in out
    assert "ValueError: no \\x1b[31mstock" in out
    assert "\x1b" not in out


def test_json(rf: Call, shop_worker: Service) -> None:
    for given in (ORDER, FAILS):
        rf("submit", "shop", given, "--wait")
    told = rf("top", "--json", "--minutes", "5").json
    assert told["runs"] == {"submitted": 2, "completed": 1, "failed": 1, "cancelled": 0}
    assert told["steps"]["failed"] == 1
    assert told["runUs"]["count"] == 2
    assert 0 < told["runUs"]["p50"] <= told["runUs"]["p99"]
    assert [worker["concurrency"] for worker in told["workers"]] == [100]
    assert told["failures"][0]["name"] == "ValueError"
    assert told["reclaimerRoundAgoUs"] is None


def test_nothing_yet(rf: Call, registered: None) -> None:
    out = rf("top", "--once").out
    assert "every queue is empty" in out
    assert "none is alive" in out
    assert "no reclaimer has run" in out


def test_no_terminal(rf: Call) -> None:
    refused = rf("top")
    assert refused.code == 2
    assert "--once" in refused.error


def test_no_server(tmp_path: Path, env: dict[str, str]) -> None:
    gone = {**env, "REDISFLOW_URL": f"unix://{tmp_path}/none.sock"}
    done = run_process("top", "--once", cwd=tmp_path, env=gone)
    assert done.code == 1
    assert "cannot use Redis" in done.error


class Terminal:
    """A command in a pseudo terminal."""

    def __init__(self, *arguments: str, cwd: Path, env: dict[str, str]) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.text = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "redisflow", *arguments], cwd=cwd, env={**env, "TERM": "xterm-256color"},
            stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
        )  # fmt: skip

    def read(self) -> None:
        if select.select([self.master], [], [], 0.02)[0]:
            self.text += os.read(self.master, 65536)

    def expect(self, text: bytes) -> None:
        def seen() -> bool:
            self.read()
            return text in self.text

        until(seen, 30)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> bool:
        self.read()
        return self.process.poll() is not None


@contextmanager
def terminal(*arguments: str, cwd: Path, env: dict[str, str]) -> Iterator[Terminal]:
    running = Terminal(*arguments, cwd=cwd, env=env)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait()
        os.close(running.master)
        os.close(running.slave)


@pytest.mark.parametrize("ending", ["q", "Q", "Ctrl-C", "SIGINT"])
def test_live(rf: Call, registered: None, tmp_path: Path, env: dict[str, str], ending: str) -> None:
    with terminal("top", "--every", "0.2", cwd=tmp_path, env=env) as screen:
        screen.expect(b"every queue is empty")
        rf("submit", "shop", ORDER)
        screen.expect(b"oldest due")
        began = time.monotonic()
        if ending == "SIGINT":
            screen.process.send_signal(signal.SIGINT)
        else:
            screen.press(b"\x03" if ending == "Ctrl-C" else ending.encode())
        until(screen.ended, 10)
        assert time.monotonic() - began < 5
        screen.expect(b"\x1b[?1049l")  # the screen before is back
        assert screen.process.returncode == 0
        assert b"Traceback" not in screen.text
        assert termios.tcgetattr(screen.slave) == screen.before
