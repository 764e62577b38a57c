"""Loads lua/: one file a transition, `-- @include lib/x` for what they share.

The comment header of a script is its signature, and is parsed, so it cannot drift: `KEYS name type`, `ARGV name type` (`string`,
`int`, or `list` for all that remain), `RETURNS`, `EVENTS`. The names become locals on the script's second line, in place of the
title. Errors that Redis reports by line of the joined text are told by file and line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_INCLUDE = re.compile(r"^-- @include (\S+)\s*$")
_HEADER = re.compile(r"^-- (KEYS|ARGV|RETURNS|EVENTS) (.*)$")
_ERROR_LINE = re.compile(r"(?:user_script|@user_script):(?:\s*)(\d+)")


class ScriptError(Exception):
    """A script that cannot be loaded: the message names file and line."""


@dataclass(frozen=True)
class Script:
    """One transition: its text as sent, and its signature.

    Attributes:
        name: file name without `.lua`.
        text: the joined source.
        sha: SHA-1 by which EVALSHA names it.
        arguments: (name, type) of each ARGV.
        events: event types it may append.
    """

    name: str
    title: str
    text: str
    arguments: tuple[tuple[str, str], ...]
    events: tuple[str, ...]
    returns: str
    lines: tuple[tuple[str, int], ...] = field(repr=False)
    sha: str = ""

    def pack(self, rest: Sequence[object] = (), **named: object) -> list[object]:
        """ARGV in the order of the header.

        Args:
            rest: the items of the `list` argument.
            named: the other arguments by name.

        Raises:
            TypeError: a name is missing or unknown.
        """
        names = [name for name, kind in self.arguments if kind != "list"]
        if set(names) != named.keys():
            raise TypeError(f"{self.name} takes {names}, not {sorted(named)}")
        return [*(named[name] for name in names), *rest]

    def locate(self, message: str) -> str:
        """A Redis error message with lines of the joined text told by file and line."""

        def place(found: re.Match[str]) -> str:
            number = int(found.group(1))
            if 0 < number <= len(self.lines):
                file, line = self.lines[number - 1]
                return f"lua/{file}:{line}"
            return found.group(0)

        return _ERROR_LINE.sub(place, message)


def find_lua() -> Path:
    """The folder of the scripts: in the installed package, else in the checkout.

    Raises:
        ScriptError: neither holds any script.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "lua", package.parent / "lua"):
        if any(folder.glob("*.lua")):
            return folder
    raise ScriptError(f"no Lua scripts in {package / 'lua'} or {package.parent / 'lua'}: the installation is broken")


@cache
def load_scripts() -> dict[str, Script]:
    """All scripts by name; loaded once a process."""
    folder = find_lua()
    return {path.stem: parse_script(folder, path.stem) for path in sorted(folder.glob("*.lua"))}


def parse_script(folder: Path, name: str) -> Script:
    """Join a script with its includes and parse its header.

    Raises:
        ScriptError: the header is wrong, an include is missing or includes itself.
    """
    source = (folder / f"{name}.lua").read_text().splitlines()
    if len(source) < 2 or not source[0].startswith("#!lua") or not source[1].startswith("-- "):
        raise ScriptError(f"lua/{name}.lua must open with #!lua and a title comment")
    keys: list[str] = []
    arguments: list[tuple[str, str]] = []
    events: tuple[str, ...] = ()
    returns = ""
    for line in source[2:]:
        if header := _HEADER.match(line):
            kind, text = header.groups()
            words = text.split()
            if kind == "KEYS":
                keys.append(words[0])
            elif kind == "ARGV":
                if words[1] not in ("string", "int", "list"):
                    raise ScriptError(f"lua/{name}.lua: ARGV {words[0]} has the unknown type {words[1]}")
                arguments.append((words[0], words[1]))
            elif kind == "EVENTS":
                events = tuple(words)
            else:
                returns = text
    if keys != ["meta", "never"]:
        raise ScriptError(f"lua/{name}.lua must declare KEYS meta and never, and no other")
    lines: list[tuple[str, int]] = []
    joined: list[str] = []
    _join(folder, name, source, joined, lines, [], set())
    joined[1] = _bind(arguments)
    text = "\n".join(joined) + "\n"
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, source[1][3:], text, tuple(arguments), events, returns, tuple(lines), digest)


def _bind(arguments: Sequence[tuple[str, str]]) -> str:
    parts = ["local meta, never = KEYS[1], KEYS[2]"]
    for index, (name, kind) in enumerate(arguments, 1):
        value = {"string": f"ARGV[{index}]", "int": f"tonumber(ARGV[{index}])", "list": str(index)}[kind]
        parts.append(f"local {name} = {value}")
    return " ".join(parts)


def _join(
    folder: Path, name: str, source: Sequence[str], joined: list[str], lines: list[tuple[str, int]],
    path: list[str], done: set[str],
) -> None:  # fmt: skip
    for number, line in enumerate(source, 1):
        found = _INCLUDE.match(line)
        if not found:
            joined.append(line)
            lines.append((f"{name}.lua", number))
            continue
        wanted = found.group(1)
        if wanted in path:
            raise ScriptError(f"lua/{name}.lua:{number}: {' -> '.join([*path, wanted])} includes itself")
        if wanted in done:
            continue
        file = folder / f"{wanted}.lua"
        if not file.is_file():
            raise ScriptError(f"lua/{name}.lua:{number}: there is no lua/{wanted}.lua to include")
        done.add(wanted)
        _join(folder, wanted, file.read_text().splitlines(), joined, lines, [*path, wanted], done)
