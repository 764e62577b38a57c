"""Loads lua/: one file a transition, `-- @include lib/x` for what they share; together one library of Redis functions.

The comment header of a script is its signature, and is parsed, so it cannot drift: `KEYS name type`, `ARGV name type` (`string`,
`int`, or `list` for all that remain), `RETURNS`, `EVENTS`. A script becomes a function: its first line opens it, in place of the
title its names become locals, and `open` of lib/open and `repeated` of lib/once begin the call where it includes them. Errors that
Redis tells by line of the library are told by file and line.

`-- @slots run: status attempt` makes a record of a table that is a list: from there on `.status` is read as `[1]`, whatever stands
before it. A slot that two records share has the same place in both, and no table may be built with the name of a slot. Numbers with
a name in capitals, `local BATCH = 100` at the start of a line, are put in where they are used: Lua has room for 200 locals.

Functions, not EVALSHA: a script makes all its closures anew at every call, which costs more than what a small call does. Redis 7.0
gives a library that loads nothing but `redis.register_function`, so the first call builds it. The library is named by its content:
workers of two versions run side by side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

_INCLUDE = re.compile(r"^-- @include (\S+)\s*$")
_HEADER = re.compile(r"^-- (KEYS|ARGV|RETURNS|EVENTS) (.*)$")
_ERROR_LINE = re.compile(r"@?user_function:\s*(\d+)")
_BEGINNINGS = {"lib/open": "open(KEYS, epoch)", "lib/once": "repeated(request)"}
_SLOTS = re.compile(r"^-- @slots (\w+): (.*)$")
_CONSTANT = re.compile(r"^local ([A-Z][A-Z_]*) = ([0-9]+)\b(?!\.)")
_WORD = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|--.*|(?<!\.)\.([a-z_]+)\b|(?<![.\w])([A-Z][A-Z_]*)\b""")
_BRACES = re.compile(r"\{([^{}]*)")
_BUILT = re.compile(r"\b([a-z_]+)\s*=(?!=)")
_NAME = "redisflow_LIBRARY"  # stands for the name until the text is whole and can be hashed


class ScriptError(Exception):
    """A script that cannot be loaded: the message names file and line."""


@dataclass(frozen=True)
class Library:
    """What FUNCTION LOAD takes.

    Attributes:
        name: `redisflow_` and a hash of the text.
        text: the joined source.
        lines: file and line of each of its lines.
    """

    name: str
    text: str
    lines: tuple[tuple[str, int], ...] = field(repr=False)

    def locate(self, message: str) -> str:
        """A Redis error message with lines of the library told by file and line."""

        def place(found: re.Match[str]) -> str:
            number = int(found.group(1))
            if 0 < number <= len(self.lines):
                file, line = self.lines[number - 1]
                return f"lua/{file}:{line}"
            return found.group(0)

        return _ERROR_LINE.sub(place, message)


@dataclass(frozen=True)
class Script:
    """One transition: a function of the library, and its signature.

    Attributes:
        name: file name without `.lua`.
        arguments: (name, type) of each ARGV.
        events: event types it may append.
        library: where it is.
    """

    name: str
    title: str
    arguments: tuple[tuple[str, str], ...]
    events: tuple[str, ...]
    returns: str
    library: Library = field(repr=False)

    @cached_property
    def function(self) -> str:
        """What FCALL calls it."""
        return f"{self.library.name}_{self.name}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of its arguments, save the list."""
        return tuple(name for name, kind in self.arguments if kind != "list")

    @cached_property
    def repeatable(self) -> bool:
        """It takes a request id, under which it keeps its reply."""
        return "request" in self.names

    def pack(self, rest: Sequence[object] = (), **named: object) -> list[object]:
        """ARGV in the order of the header.

        Args:
            rest: the items of the `list` argument.
            named: the other arguments by name.

        Raises:
            TypeError: a name is missing or unknown.
        """
        names = self.names
        try:
            argv = [named[name] for name in names]
        except KeyError:
            argv = None
        if argv is None or len(argv) != len(named):
            raise TypeError(f"{self.name} takes {[*names]}, not {sorted(named)}")
        argv += rest
        return argv


def lacks_function(message: str) -> bool:
    """Whether Redis says that the library is not loaded."""
    return "Function not found" in message


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
    return parse_scripts(folder, sorted(path.stem for path in folder.glob("*.lua")))


def parse_scripts(folder: Path, names: Sequence[str]) -> dict[str, Script]:
    """Join scripts with their includes into one library and parse their headers.

    Raises:
        ScriptError: a header is wrong, an include is missing or includes itself.
    """
    signatures = []
    source = _Source(folder)
    source.add("library", 1, f"#!lua name={_NAME}")
    source.add("library", 2, "local built local function build() local functions = {}")
    for name in names:
        lines = (folder / f"{name}.lua").read_text().splitlines()
        signature = _parse_header(name, lines)
        signatures.append(signature)
        source.add_function(name, lines, signature[2])
    source.close()
    text = "\n".join(source.text) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    name = f"redisflow_{digest}"
    library = Library(name, text.replace(_NAME, name), tuple(source.lines))
    return {signature[0]: Script(*signature, library) for signature in signatures}


_Signature = tuple[str, str, tuple[tuple[str, str], ...], tuple[str, ...], str]


def _parse_header(name: str, source: Sequence[str]) -> _Signature:
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
    return name, source[1][3:], tuple(arguments), events, returns


class _Source:
    """The text of a library as it grows: first what a script includes, each file once, then the script as a function."""

    def __init__(self, folder: Path) -> None:
        self.text: list[str] = []
        self.lines: list[tuple[str, int]] = []
        self._folder = folder
        self._included: set[str] = set()
        self._registered: list[str] = []
        self._records: dict[str, int] = {}  # slots declared so far
        self._slots: dict[str, int] = {}
        self._constants: dict[str, str] = {}
        self._named: dict[str, str] = {}  # fields that are read by name, and where first

    def add(self, file: str, number: int, line: str) -> None:
        """A line, and where it comes from."""
        if declared := _SLOTS.match(line):
            self._declare(f"lua/{file}:{number}", *declared.groups())
        for built in _BUILT.findall(" ".join(_BRACES.findall(line))):
            if built in self._slots:
                raise ScriptError(f"lua/{file}:{number}: {built!r} is a slot of a record, whose tables are lists")
        if constant := _CONSTANT.match(line):
            self._constants[constant[1]] = constant[2]
            line = "--"
        self.lines.append((file, number))
        self.text.append(_WORD.sub(self._put_in, line))

    def _declare(self, where: str, record: str, names: str) -> None:
        for name in names.split():
            place = self._records[record] = self._records.get(record, 0) + 1
            if name in self._named:
                raise ScriptError(f"{where}: slot {name!r} is a name in {self._named[name]}, before it is declared")
            if self._slots.setdefault(name, place) != place:
                raise ScriptError(
                    f"{where}: slot {name!r} is number {self._slots[name]} of another record, and {place} here"
                )

    def _put_in(self, found: re.Match[str]) -> str:
        slot, constant = found.groups("")
        if slot in self._slots:
            return f"[{self._slots[slot]}]"
        if slot:
            self._named.setdefault(slot, "lua/{}:{}".format(*self.lines[-1]))
        return self._constants.get(constant, found[0])

    def add_function(self, name: str, source: Sequence[str], arguments: Sequence[tuple[str, str]]) -> None:
        """A script, behind what it includes."""
        self._include(name, source, [])
        head = ["do local function main(KEYS, ARGV)", f"{_bind(arguments)} {_begin(source)}"]
        for number, line in enumerate([*head, *source[2:]], 1):
            self.add(f"{name}.lua", number, line)
        self.add(f"{name}.lua", len(source), f"end functions.{name} = main end")
        flags = ", ".join(f"'{flag}'" for flag in re.findall(r"[\w-]+", source[0].partition("flags=")[2]))
        callback = f"function(keys, argv) if not built then built = build() end return built.{name}(keys, argv) end"
        self._registered.append(
            f"redis.register_function{{ function_name = '{_NAME}_{name}', flags = {{ {flags} }}, callback = {callback} }}"
        )

    def close(self) -> None:
        """The end of the library: Redis knows its functions from here."""
        self.add("library", 3, "return functions end")
        for number, line in enumerate(self._registered, 4):
            self.add("library", number, line)

    def _include(self, name: str, source: Sequence[str], path: list[str]) -> None:
        for number, line in enumerate(source, 1):
            found = _INCLUDE.match(line)
            if not found:
                continue
            wanted = found.group(1)
            if wanted in path:
                raise ScriptError(f"lua/{name}.lua:{number}: {' -> '.join([*path, wanted])} includes itself")
            if wanted in self._included:
                continue
            file = self._folder / f"{wanted}.lua"
            if not file.is_file():
                raise ScriptError(f"lua/{name}.lua:{number}: there is no lua/{wanted}.lua to include")
            lines = file.read_text().splitlines()
            self._include(wanted, lines, [*path, wanted])
            self._included.add(wanted)
            for place, text in enumerate(lines, 1):
                self.add(f"{wanted}.lua", place, text)


def _begin(source: Sequence[str]) -> str:
    """How a call begins, by what its script includes: it may end here, as of another epoch or as a repeat."""
    included = {found.group(1) for line in source if (found := _INCLUDE.match(line))}
    ends = [call for lib, call in _BEGINNINGS.items() if lib in included]
    return f"local ended = {' or '.join(ends)} if ended then return ended end" if ends else ""


def _bind(arguments: Sequence[tuple[str, str]]) -> str:
    parts = ["local meta, never = KEYS[1], KEYS[2]"]
    for index, (name, kind) in enumerate(arguments, 1):
        value = {"string": f"ARGV[{index}]", "int": f"tonumber(ARGV[{index}])", "list": str(index)}[kind]
        parts.append(f"local {name} = {value}")
    return " ".join(parts)
