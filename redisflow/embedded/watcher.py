"""The process above the server: ends it when nobody holds the shared lock, takes it along if killed.

This file is run by its path, in isolated mode and without site-packages: so it is up in some 20 ms, and no
setting of the user's environment breaks it. Hence nothing but the standard library is imported here.

It leaves its starter's session and family: a Ctrl-C there does not reach it, and nobody has to reap it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

GRACE: Final = 1.0
"""Seconds without a user after which the server ends, so that a row of short commands shares one."""
STOP_PATIENCE: Final = 5.0
"""Seconds that the server may take over its orderly end."""

_POLL: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


def try_lock(descriptor: int, kind: int) -> bool:
    """Take a lock if that needs no waiting.

    Args:
        descriptor: of the lock file.
        kind: `fcntl.LOCK_SH` or `fcntl.LOCK_EX`.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def watch(home: Path, socket: Path, program: str) -> None:
    """Run the server until nobody uses it, it ends by itself, or this process is told to end.

    Args:
        home: folder of its data, its log and the locks.
        socket: where it is to listen.
        program: what to run.
    """
    os.umask(0o077)
    os.chdir(home)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    users = os.open("lock", os.O_RDWR | os.O_CREAT, 0o600)
    server = _fork_server([program, *_options(home, socket)])
    used = time.monotonic()
    while not _has_ended(server):
        if not _is_same_file(home / "lock", users):
            # the folder was deleted, its data with it; an orderly end would remove the socket of a successor
            _kill(server)
            return
        unused = try_lock(users, fcntl.LOCK_EX)
        if told or (unused and time.monotonic() - used > GRACE):
            _stop(server)
            break
        if unused:
            fcntl.flock(users, fcntl.LOCK_UN)
        else:
            used = time.monotonic()
        time.sleep(_POLL)
    _clear(home, socket)


def _options(home: Path, socket: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(home),
        "logfile": str(home / "server.log"),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "stream-node-max-bytes": "1024",
        "zset-max-listpack-entries": "0",
        "daemonize": "no",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _fork_server(command: list[str]) -> int:
    """Start the server so that it cannot outlive this process, however early that dies.

    It inherits `server.lock` from here, which was made inheritable by the starter.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    watcher = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # else one that comes before the exec would be lost
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGTERM))
        if os.getppid() == watcher:  # else it died before the line above
            os.execv(command[0], command)  # noqa: S606 -- no shell wanted
    except OSError as error:
        os.write(2, f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def _has_ended(server: int) -> bool:
    return os.waitpid(server, os.WNOHANG)[0] == server


def _is_same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _stop(server: int) -> None:
    """End the server in order, which writes out its command log; by force where that takes long."""
    os.kill(server, signal.SIGTERM)
    deadline = time.monotonic() + STOP_PATIENCE
    while not _has_ended(server):
        if time.monotonic() > deadline:
            _kill(server)
            return
        time.sleep(0.005)


def _kill(server: int) -> None:
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)


def _clear(home: Path, socket: Path) -> None:
    """Remove what a killed server leaves; nobody can have started another while its lock is held here."""
    try:
        socket.unlink(missing_ok=True)
        if socket.parent != home:
            socket.parent.rmdir()
    except OSError:
        return  # somebody else's tidying; the next start makes both anew


def main() -> NoReturn:
    """Become the watcher; the process that was started ends at once."""
    home, socket, program = sys.argv[1:]
    if os.fork() == 0:
        watch(Path(home), Path(socket), program)
    os._exit(0)


if __name__ == "__main__":
    main()
