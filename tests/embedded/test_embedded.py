"""The embedded server, with real processes: shared, out of reach of Ctrl-C, gone when the last user is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from redisflow.embedded import EmbeddedServer, attach, program, server
from redisflow.model.errors import ServerUnavailable

USER = """
import select
import sys
from redisflow.embedded import EmbeddedServer
held = EmbeddedServer.start(sys.argv[1])
print(held.pid, held.url, flush=True)
while not select.select([sys.stdin], [], [], 0.5)[0]:
    pass  # a signal between two lines does not end a read that begins after it
"""
REPOSITORY = Path(__file__).parents[2]


def until(condition: Callable[[], object], timeout: float = 15.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def watcher_of(pid: int) -> int:
    parent = psutil.Process(pid).parent()
    assert parent is not None
    assert any(part.endswith("watcher.py") for part in parent.cmdline())
    return parent.pid


def processes_of(home: Path) -> list[psutil.Process]:
    """Watchers name the folder on their command line, and servers work in it."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = str(home) in process.cmdline() or process.cwd() == str(home)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def connect(held: EmbeddedServer) -> redis.Redis:
    return redis.Redis.from_url(held.url, decode_responses=True, single_connection_client=True)


class User:
    """A process of its own that uses the server until its input ends."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            start_new_session=True,  # as a terminal of its own would be
        )
        self.server_pid = 0
        self.url = ""

    def wait_ready(self) -> User:
        assert self.process.stdout is not None
        pid, self.url = self.process.stdout.readline().split()
        self.server_pid = int(pid)
        return self

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for the server; at the end of the test nothing may run in it."""
    folder = Path(tempfile.mkdtemp(prefix="rf-")).resolve()
    yield folder / ".redisflow"
    try:
        until(lambda: not processes_of(folder / ".redisflow"))
    finally:
        for process in processes_of(folder / ".redisflow"):
            process.kill()
        shutil.rmtree(folder)


@pytest.fixture
def user(home: Path) -> Iterator[Callable[[], User]]:
    """Makes users; they are ended before `home` looks what is left."""
    made: list[User] = []

    def make() -> User:
        made.append(User(home))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_starts_a_server_that_answers(home: Path) -> None:
    with EmbeddedServer.start(home) as held, connect(held) as client:
        assert client.ping()
        assert client.info("server")["process_id"] == held.pid
        assert held.url == f"unix://{home}/redis.sock?db=0"


def test_configuration(home: Path) -> None:
    wanted = {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "stream-node-max-bytes": "1024",
        "zset-max-listpack-entries": "0",
        "maxmemory-policy": "noeviction",
        "save": "",
        "port": "0",
        "dir": str(home),
        "logfile": f"{home}/server.log",
        "unixsocketperm": "700",
    }
    with EmbeddedServer.start(home) as held, connect(held) as client:
        assert client.config_get(*wanted) == wanted


def test_only_the_owner_can_enter(home: Path) -> None:
    with EmbeddedServer.start(home) as held, connect(held) as client:
        client.set("a", "b")
        modes = {path.name: stat.S_IMODE(path.lstat().st_mode) for path in [home, *home.rglob("*")]}
    assert modes.pop(".gitignore") == 0o644
    assert modes.pop(".redisflow") == 0o700
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


def test_processes_share_one_server(home: Path, user: Callable[[], User]) -> None:
    first, second = user().wait_ready(), user().wait_ready()
    assert first.server_pid == second.server_pid
    assert first.url == second.url


def test_eight_starters_get_one_server(home: Path, user: Callable[[], User]) -> None:
    users = [user() for _ in range(8)]
    assert len({one.wait_ready().server_pid for one in users}) == 1
    assert len(processes_of(home)) == 8 + 2, "more than one watcher and one server"


def test_kill_of_the_only_user_ends_server_and_watcher(home: Path, user: Callable[[], User]) -> None:
    only = user().wait_ready()
    watcher = watcher_of(only.server_pid)
    only.end()
    until(lambda: is_gone(only.server_pid) and is_gone(watcher))
    assert not (home / "redis.sock").exists()


def test_server_stays_while_one_user_is_left(home: Path, user: Callable[[], User]) -> None:
    starter, other = user().wait_ready(), user().wait_ready()
    starter.end()
    with EmbeddedServer.start(home) as held:
        assert held.pid == other.server_pid


def test_interrupt_of_the_starter_leaves_the_server_to_others(home: Path, user: Callable[[], User]) -> None:
    starter = user().wait_ready()
    held = attach(home)
    assert held is not None
    with held, connect(held) as client:
        os.killpg(starter.process.pid, signal.SIGINT)
        starter.process.wait(10)
        assert client.ping()
        assert os.getsid(held.pid) != starter.process.pid
        assert not is_gone(watcher_of(held.pid))


def test_kill_of_the_watcher_ends_the_server(home: Path) -> None:
    with EmbeddedServer.start(home) as held:
        os.kill(watcher_of(held.pid), signal.SIGKILL)
        until(lambda: is_gone(held.pid))
        with EmbeddedServer.start(home) as again:
            assert again.pid != held.pid


def test_end_of_the_watcher_is_orderly(home: Path) -> None:
    with EmbeddedServer.start(home) as held:
        watcher = watcher_of(held.pid)
        os.kill(watcher, signal.SIGTERM)
        until(lambda: is_gone(watcher))
    assert is_gone(held.pid)
    assert "bye bye" in (home / "server.log").read_text()


def test_crash_of_the_server_and_its_stale_socket(home: Path) -> None:
    with EmbeddedServer.start(home) as held:
        with connect(held) as client:
            client.set("kept", "1")
        watcher = watcher_of(held.pid)
        os.kill(watcher, signal.SIGSTOP)  # so that it cannot tidy up
        os.kill(held.pid, signal.SIGKILL)
        until(lambda: is_gone(held.pid))
        assert (home / "redis.sock").exists()
        os.kill(watcher, signal.SIGKILL)
        with EmbeddedServer.start(home) as again, connect(again) as client:
            assert again.pid != held.pid
            assert client.get("kept") == "1"


def test_another_user_can_restart_a_crashed_server(home: Path, user: Callable[[], User]) -> None:
    first = user().wait_ready()
    os.kill(first.server_pid, signal.SIGKILL)
    until(lambda: is_gone(first.server_pid))
    second = user().wait_ready()
    assert second.url == first.url
    assert second.server_pid != first.server_pid


def test_data_is_kept_over_restarts(home: Path) -> None:
    with EmbeddedServer.start(home) as held, connect(held) as client:
        for number in range(1000):
            client.xadd("events", {"number": number})
    until(lambda: is_gone(held.pid))
    with EmbeddedServer.start(home) as again, connect(again) as client:
        assert again.pid != held.pid
        assert client.xlen("events") == 1000


def test_starter_waits_for_the_end_of_the_last_server(home: Path) -> None:
    held = EmbeddedServer.start(home)
    os.kill(held.pid, signal.SIGSTOP)  # its end takes until it is woken
    held.close()
    until(lambda: has_pending(held.pid, signal.SIGTERM))
    got: list[EmbeddedServer] = []
    starter = threading.Thread(target=lambda: got.append(EmbeddedServer.start(home)))
    starter.start()
    until(lambda: count_open(home / "lock") >= 1)
    assert got == []
    os.kill(held.pid, signal.SIGCONT)
    starter.join(10)
    with got[0] as again, connect(again) as client:
        assert client.ping()
        assert again.pid != held.pid


def has_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal was sent to a process that is stopped and so could not take it yet."""
    found = re.search(r"^ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> (number - 1) & 1)


def count_open(path: Path) -> int:
    return sum(os.path.realpath(f"/proc/self/fd/{fd}") == str(path) for fd in os.listdir("/proc/self/fd"))


def test_starting_and_ending_in_a_row(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        with EmbeddedServer.start(home) as held, connect(held) as client:
            assert client.incr("count") == number + 1


@pytest.mark.parametrize("length", [107, 108, 150])
def test_path_around_the_limit(home: Path, length: int) -> None:
    deep = home.parent / "d" / ".redisflow"
    deep = home.parent / ("d" * (length - len(str(deep / "redis.sock")) + 1)) / ".redisflow"
    assert len(str(deep / "redis.sock")) == length
    with EmbeddedServer.start(deep) as held, connect(held) as client:
        assert client.ping()
        short = length > 107
        assert (held.socket.parent != deep) == short
        assert (deep / "socket").exists() == short
        joined = attach(deep)
        assert joined is not None
        joined.close()
    if short:
        assert (deep / "socket").read_text() == str(held.socket)
        until(lambda: not held.socket.parent.exists())
    until(lambda: not processes_of(deep))


def test_short_socket_folder_of_somebody_else(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = home.parent / ("d" * 120)
    monkeypatch.setattr(tempfile, "tempdir", str(home.parent))
    with EmbeddedServer.start(deep) as held:
        pass
    until(lambda: not held.socket.parent.exists())
    held.socket.parent.mkdir(mode=0o777)
    held.socket.parent.chmod(0o777)
    with pytest.raises(ServerUnavailable, match="not yours alone"):
        EmbeddedServer.start(deep)


def test_odd_characters_in_the_path(home: Path) -> None:
    odd = home.parent / 'a b%20#?"ä' / ".redisflow"
    with EmbeddedServer.start(odd) as held, connect(held) as client:
        assert client.config_get("dir") == {"dir": str(odd)}
    until(lambda: not processes_of(odd))


def test_attach_finds_nothing(home: Path) -> None:
    assert attach(home) is None
    assert not home.exists()
    with EmbeddedServer.start(home) as held:
        pass
    until(lambda: is_gone(held.pid))
    assert attach(home) is None


def test_attach_joins_and_keeps_the_server(home: Path, user: Callable[[], User]) -> None:
    starter = user().wait_ready()
    joined = attach(home)
    assert joined is not None
    starter.end()
    with joined, connect(joined) as client:
        assert joined.pid == starter.server_pid
        assert client.ping()


def test_attach_waits_for_one_that_is_starting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer.start(home) as held:
        os.kill(held.pid, signal.SIGSTOP)
        got: list[EmbeddedServer | None] = []
        thread = threading.Thread(target=lambda: got.append(attach(home)))
        thread.start()
        until(lambda: count_open(home / "lock") == 2)
        os.kill(held.pid, signal.SIGCONT)
        thread.join(10)
        assert got[0] is not None
        got[0].close()


def test_hold_is_not_inherited_by_programs(home: Path) -> None:
    with EmbeddedServer.start(home) as held:
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    until(lambda: is_gone(held.pid))
    child.kill()
    child.wait()


def test_closing_twice_is_harmless(home: Path) -> None:
    held = EmbeddedServer.start(home)
    held.close()
    held.close()


def test_deleted_folder_ends_its_server(home: Path) -> None:
    with EmbeddedServer.start(home) as held:
        shutil.rmtree(home)
        until(lambda: is_gone(held.pid))
        with EmbeddedServer.start(home) as again, connect(again) as client:
            assert client.ping()


def test_failed_start_shows_the_log(home: Path) -> None:
    (home / "appendonlydir").mkdir(parents=True)
    (home / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ServerUnavailable, match=r"(?s)ended as it started; its log ends with:.*manifest"):
        EmbeddedServer.start(home)


def test_server_that_never_answers(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "PATIENCE", 0.5)
    with EmbeddedServer.start(home) as held:
        os.kill(held.pid, signal.SIGSTOP)
        with pytest.raises(ServerUnavailable, match=r"does not answer after 0\.5 s"):
            attach(home)
        os.kill(held.pid, signal.SIGCONT)


def test_no_server_program(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho Redis server v=6.2.14 sha=0\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(program, "_bundled", lambda: None)
    with pytest.raises(ServerUnavailable, match=r"passed over: .*redis-server \(6\.2\.14\)"):
        EmbeddedServer.start(home)


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on the PATH")
def test_program_on_the_path(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_bundled", lambda: None)
    with EmbeddedServer.start(home) as held, connect(held) as client:
        assert client.ping()
        assert "redis-server" in psutil.Process(held.pid).name()


def test_watcher_needs_the_standard_library_alone() -> None:
    source = (Path(server.__file__).parent / "watcher.py").read_text()
    shown = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", "-c", source.replace("main()\n", "pass\n")],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "ctypes" in shown
    assert "site-packages" not in shown
    assert "redisflow" not in shown
