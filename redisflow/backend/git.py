"""The commit that a folder's code stands at, for the record of a workflow's version.

Asked once a process and folder, and only when a version is new. Whatever goes wrong (no git, no repository, a slow disk)
means that nothing is known, never that a worker does not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

from redisflow.model.states import GitInfo

TIMEOUT = 2.0  # seconds for git's answer
# fsmonitor would run a program of the repository's choice; optional locks would disturb whoever works in it
_COMMAND = ("git", "--no-optional-locks", "-c", "core.fsmonitor=false", "status", "--porcelain=v2", "--branch")
_known: dict[Path, GitInfo | None] = {}


async def git_info(location: str | None) -> GitInfo | None:
    """Commit, branch (`HEAD` where none is checked out) and whether there are changes on top.

    Args:
        location: a source file; None, or one that is not here, stands for the working directory.
    """
    folder = Path(location).parent if location and Path(location).exists() else Path.cwd()
    folder = folder.resolve()
    if folder not in _known:
        _known[folder] = _parse(await _status(folder))
    return _known[folder]


async def _status(folder: Path) -> str:
    """What git says of the folder; "" where it says nothing in time."""
    # a hook's environment would name another repository than the folder's
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, cwd=folder, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL
        )
    except (OSError, NotImplementedError):  # no git, or a loop without processes
        return ""
    try:
        async with asyncio.timeout(TIMEOUT):
            output, _ = await process.communicate()
    except TimeoutError:
        return ""
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return output.decode(errors="replace") if process.returncode == 0 else ""


def _parse(status: str) -> GitInfo | None:
    heads, dirty = {}, False
    for line in status.splitlines():
        if line.startswith("# branch."):
            name, _, value = line.removeprefix("# branch.").partition(" ")
            heads[name] = value
        elif not line.startswith("#"):
            dirty = True
    commit, branch = heads.get("oid", "(initial)"), heads.get("head", "(detached)")
    if commit == "(initial)":
        return None
    return GitInfo(commit=commit, branch="HEAD" if branch == "(detached)" else branch, dirty=dirty)
