"""The users' side of the embedded server: hold the shared lock, find the server, start it where none runs.

The lock is taken before the first look: whoever holds it can trust that a server which answers stays. The
rest is one loop that asks again until it gets an answer, and starts a watcher where `server.lock` shows that
neither a watcher nor a server lives. So a starter may die at any point: the next one goes on from there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from socket import AF_UNIX, socket
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from redisflow.embedded import watcher
from redisflow.embedded.program import find_program
from redisflow.embedded.watcher import try_lock
from redisflow.model.errors import ServerUnavailable

PATIENCE: Final = 10.0
"""Seconds that a server may take to come up; while it loads its data it may take longer."""
SOCKET_LIMIT: Final = 107 if sys.platform == "linux" else 103
"""Bytes of the longest path of a unix socket: `sun_path` without its final NUL."""

_LOG_LIMIT: Final = 1 << 20


class EmbeddedServer:
    """A hold on the server of a folder, which runs for as long as any process has one.

    Got by `start` or `attach`, given back by `close`; a process that is killed gives it back as well. The
    hold is this process's alone: a program that it executes does not inherit it and has to `attach` on its
    own. (A child that is forked without an exec shares it until it ends.)

    Attributes:
        home: the folder.
        socket: path of the unix socket.
        pid: process id of the server.
    """

    def __init__(self, home: Path, socket: Path, pid: int, lock: int) -> None:
        self.home: Final = home
        self.socket: Final = socket
        self.pid: Final = pid
        self._lock: int | None = lock

    @classmethod
    def start(cls, home: Path | str = ".redisflow") -> EmbeddedServer:
        """Join the server of a folder, or start it where none runs; returns once it answers.

        Args:
            home: the folder; made, for its owner only, where it does not exist.

        Raises:
            ServerUnavailable: no server program is installed, the folder cannot be used, or the server is not
                up within 10 seconds; the message has the end of its log.
        """
        folder = _absolute(home)
        try:
            _make_home(folder)
            found = _join(folder, may_start=True)
        except OSError as error:
            raise _unavailable(folder, f"cannot use the folder: {error}") from error
        assert found is not None, "only attach finds none"
        return found

    @property
    def url(self) -> str:
        """Its address, as `redis.from_url` and REDISFLOW_URL take it."""
        return f"unix://{quote(str(self.socket))}?db=0"

    def close(self) -> None:
        """Let go; when the last user has, the server ends. Safe to call again."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def attach(home: Path | str = ".redisflow") -> EmbeddedServer | None:
    """Join the server of a folder, but never start one.

    Args:
        home: the folder.

    Returns:
        A hold on it; None where none runs. One that is just starting is waited for.

    Raises:
        ServerUnavailable: there is one, but it does not answer, or the folder cannot be used.
    """
    folder = _absolute(home)
    try:
        return _join(folder, may_start=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unavailable(folder, f"cannot use the folder: {error}") from error


def _absolute(home: Path | str) -> Path:
    return Path(home).expanduser().resolve()


def _make_home(folder: Path) -> None:
    """Make the folder. One that is there keeps its mode: all that is put into it is private by itself."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")


def _join(folder: Path, *, may_start: bool) -> EmbeddedServer | None:
    """Take the shared lock, which keeps a running server running; then look for one."""
    deadline = time.monotonic() + PATIENCE
    create = os.O_CREAT if may_start else 0
    users = os.open(folder / "lock", os.O_RDONLY | create, 0o600)
    try:
        # refused while a watcher has it exclusively: for a moment to look, or until its server has ended
        while not try_lock(users, fcntl.LOCK_SH):
            _pause(folder, deadline, "is still ending")
        found = _find_server(folder, deadline, create)
    except BaseException:
        os.close(users)
        raise
    if found is None:
        os.close(users)
        return None
    return EmbeddedServer(folder, *found, users)


def _find_server(folder: Path, deadline: float, create: int) -> tuple[Path, int] | None:
    """Socket and process id of the server once it answers; None where none runs and none may be created."""
    started = False
    while True:
        path = _noted_socket(folder)
        answer = _ask(path, b"PING")
        if answer == b"+PONG" and (pid := _server_pid(path)):
            return path, pid
        if answer.startswith(b"-LOADING"):
            deadline = time.monotonic() + PATIENCE
        guard = os.open(folder / "server.lock", os.O_RDWR | create, 0o600)
        try:
            if try_lock(guard, fcntl.LOCK_EX):  # so neither a watcher nor a server lives
                if not create:
                    return None
                if started:
                    raise _unavailable(folder, "ended as it started")
                _spawn_watcher(folder, guard)
                started = True
        finally:
            os.close(guard)
        _pause(folder, deadline, f"does not answer after {PATIENCE:g} s")


def _pause(folder: Path, deadline: float, what: str) -> None:
    if time.monotonic() > deadline:
        raise _unavailable(folder, what)
    time.sleep(0.005)


def _unavailable(folder: Path, what: str) -> ServerUnavailable:
    try:
        tail = (folder / "server.log").read_text(errors="replace").splitlines()[-12:]
    except OSError:
        tail = []
    log = "\n  ".join(["; its log ends with:", *tail]) if tail else ""
    return ServerUnavailable(f"the embedded server of {folder} {what}{log}")


def _ask(path: Path, command: bytes) -> bytes:
    """The reply to a command as it came; empty where nobody answers."""
    reply = b""
    with socket(AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(command + b"\r\n")
            while not _is_whole(reply):
                chunk = connection.recv(65_536)
                if not chunk:
                    return b""
                reply += chunk
        except OSError:
            return b""
    return reply.rstrip()


def _is_whole(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n")
    return bool(end) and (not head.startswith(b"$") or len(body) >= int(head[1:]) + 2)


def _server_pid(path: Path) -> int:
    found = re.search(rb"^process_id:(\d+)", _ask(path, b"INFO server"), re.MULTILINE)
    return int(found[1]) if found else 0


def _noted_socket(folder: Path) -> Path:
    """Where the server of this folder listens, if it runs; its starter may have had another temp dir."""
    path = folder / "redis.sock"
    if not _fits(path):
        try:
            return Path(os.fsdecode((folder / "socket").read_bytes()))
        except FileNotFoundError:
            pass  # nobody answers at a path that is too long, which is the truth
    return path


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_LIMIT


def _make_socket_path(folder: Path) -> Path:
    """A path that is short enough, in a folder that only this user can enter."""
    path = folder / "redis.sock"
    if _fits(path):
        return path
    name = f"redisflow-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    path = Path(tempfile.gettempdir(), name, "redis.sock")
    if not _fits(path):
        path = Path("/tmp", name, "redis.sock")  # noqa: S108 -- checked below
    path.parent.mkdir(mode=0o700, exist_ok=True)
    made = path.parent.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.geteuid() or made.st_mode & 0o077:
        raise _unavailable(folder, f"needs the folder {path.parent}, which is not yours alone: remove it")
    note = folder / "socket.new"
    note.write_bytes(os.fsencode(path))
    note.replace(folder / "socket")
    return path


def _spawn_watcher(folder: Path, guard: int) -> None:
    """Start the watcher and hand it the guard; returns once it has left this process's family."""
    program = find_program()
    path = _make_socket_path(folder)
    log = folder / "server.log"
    anew = os.O_TRUNC if log.exists() and log.stat().st_size > _LOG_LIMIT else 0
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | anew, 0o600)
    try:
        subprocess.run(  # noqa: S603 -- a file of ours, no shell
            [sys.executable, "-I", "-S", watcher.__file__, str(folder), str(path), program],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[guard],
            start_new_session=True,
            check=False,  # a failure is in the log, and the guard is free again
        )
    finally:
        os.close(output)
