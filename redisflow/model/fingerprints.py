"""Fingerprints: equal errors get equal hashes, so that a thousand failures show as the three errors they are.

An error is described once, where it was raised, as name, message and formatted traceback (`StepError`). Its
hashes are made from that description alone, so an error that crossed a process or came out of an old event
hashes the same. The stack's hash covers the three innermost frames of the raised exception, not of its
causes, in three forms: *exact* (path, line, function), *normalized* (no line numbers: survives an edit above)
and *portable* (line numbers, but a path that two machines share).

Hashes group, they protect nothing: SHA-1 is what the wire form asks for.
"""

from __future__ import annotations

import hashlib
import re
import traceback
from typing import Final, Literal, NamedTuple, get_args

from redisflow.model.errors import InvalidArgument
from redisflow.model.events import ErrorFingerprints, StepError

Grouping = Literal["exact", "normalized", "portable"]
GROUPINGS: Final[tuple[Grouping, ...]] = get_args(Grouping)
UNNAMED: Final = "Error"
"""Name of an error that has none."""

_FRAMES: Final = 3
_HEADER: Final = re.compile(r"(?:Exception Group )?Traceback \(most recent call last\):")
_FRAME: Final = re.compile(r'  File "(?P<path>.*)", line (?P<line>\d+), in (?P<function>.*)')
_PATH_OF_FRAME: Final = re.compile(r'(?m)^([ |]*  File ")(.*)(", line \d+, in )')
_CHAINED: Final = frozenset(
    {
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    }
)
_GROUP_LINE: Final = re.compile(r"(?P<indent> *)(?:[|] ?|[+] (?=Exception Group ))(?P<content>.*)")
_GROUP_RULE: Final = re.compile(r"(?P<indent> *)[+](?P<opens>-[+])?-{16,}(?: [\d.]+ -{16,})?")
_INSTALLED: Final = re.compile(r".*/(?:site|dist)-packages/|.*/lib/python3\.\d+/")
_SOURCE: Final = re.compile(r"(?:.*/)?src/")
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:/")


class Fingerprint(NamedTuple):
    """A composed fingerprint taken apart; each part is a hash."""

    name: str
    message: str
    stack: str


class _Frame(NamedTuple):
    path: str
    line: str
    function: str


def describe_exception(exc: BaseException, *, project_root: str | None = None) -> StepError:
    """Describe an exception: class name, message, traceback with its causes and the members of a group.

    Args:
        exc: the exception; one that was never raised has a traceback without frames.
        project_root: folder of the user's code; where given, paths below it become relative to it.
    """
    stack = "".join(traceback.format_exception(exc))
    if project_root is not None:
        root = project_root
        stack = _PATH_OF_FRAME.sub(lambda found: found[1] + _below(root, found[2]) + found[3], stack)
    return StepError(name=type(exc).__name__, message=_encodable(_message_of(exc)), stack=_encodable(stack))


def _message_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception:  # noqa: BLE001  # a user's __str__ may raise anything; the error must still be told
        return "<exception str() failed>"


def _encodable(text: str) -> str:
    """Escape lone surrogates, which no JSON writer takes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def fingerprint_exception(exc: BaseException, *, project_root: str | None = None) -> ErrorFingerprints:
    """Hashes of an exception: those of its description, see `fingerprint_error`."""
    return fingerprint_error(describe_exception(exc), project_root=project_root)


def fingerprint_error(error: StepError, *, project_root: str | None = None) -> ErrorFingerprints:
    """Hashes of a described error.

    Args:
        error: one without a name hashes as `Error`; a stack without Python frames as the empty string.
        project_root: folder of the user's code on the machine where the error was raised, for the portable
            form. A path that lies neither there nor below site-packages, dist-packages, the standard library
            or `src/` is cut to the file's name.
    """
    frames = _innermost_frames(error)
    return ErrorFingerprints(
        name_hash=_sha1(error.name or UNNAMED),
        message_hash=_sha1(error.message),
        stack_exact_hash=_sha1("\n".join(f"{path}:{line}:{function}" for path, line, function in frames)),
        stack_normalized_hash=_sha1("\n".join(f"{path}:{function}" for path, _, function in frames)),
        stack_portable_hash=_sha1(
            "\n".join(f"{_portable(path, project_root)}:{line}:{function}" for path, line, function in frames)
        ),
    )


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode("utf-8", "backslashreplace"), usedforsecurity=False).hexdigest()


def _portable(path: str, project_root: str | None) -> str:
    path = path.replace("\\", "/")
    if project_root is not None:
        path = _below(project_root, path)
    for marker in (_INSTALLED, _SOURCE):
        found = marker.match(path)
        if found:
            return path[found.end() :]
    return path.rsplit("/", 1)[-1] if _ABSOLUTE.match(path) else path


def _below(root: str, path: str) -> str:
    """The path relative to the root where it lies below it, else the path."""
    prefix = root.replace("\\", "/").rstrip("/") + "/"
    return path[len(prefix) :] if path.replace("\\", "/").startswith(prefix) else path


def _innermost_frames(error: StepError) -> list[_Frame]:
    """Those of the exception that the stack ends with; a group without frames has its first leaf's."""
    lines = _before_message(error).split("\n")
    final = _after_last_link(lines)
    first = next((line for line in final if line), "")
    if not first.startswith(("  + Exception Group ", "  | ")):
        return _frames_of_block(final)[-_FRAMES:]
    return _frames_of_group(final, depth=1)[-_FRAMES:]


def _before_message(error: StepError) -> str:
    """The stack up to its last message, where that is itself a traceback, as remote errors have it."""
    stack = error.stack or ""
    if "Traceback (most recent" not in error.message and '  File "' not in error.message:
        return stack
    end = stack.rfind(f": {error.message}")
    return stack if end < 0 else stack[:end]


def _after_last_link(lines: list[str]) -> list[str]:
    """What follows the last link of a chain: the exception that was raised; causes come before it."""
    links = [number for number, line in enumerate(lines) if line in _CHAINED]
    return lines[links[-1] + 1 :] if links else lines


def _frames_of_block(lines: list[str]) -> list[_Frame]:
    """The frames below the first header, up to the exception's own line; without a header all frames."""
    header = next((number for number, line in enumerate(lines) if _HEADER.fullmatch(line)), None)
    frames = []
    for line in lines if header is None else lines[header + 1 :]:
        found = _FRAME.fullmatch(line)
        if found:
            frames.append(_Frame(found["path"], found["line"], found["function"]))
        elif header is not None and line and not line.startswith("  "):
            break
    return frames


def _frames_of_group(lines: list[str], depth: int) -> list[_Frame]:
    """The frames of a group whose lines have a margin of this depth, two blanks each, and a bar."""
    margin = 2 * depth
    own: list[str] = []
    members: list[str] = []
    for line in lines:
        rule, found = _GROUP_RULE.fullmatch(line), _GROUP_LINE.fullmatch(line)
        if rule is None and found is not None and len(found["indent"]) == margin:
            own.append(found["content"])
            if found["content"] in _CHAINED:
                own, members = [], []  # all before was a cause
        else:
            members.append(line)
    frames = _frames_of_block(own)
    return frames or (_frames_of_group(_first_member(members, margin), depth + 1) if members else [])


def _first_member(lines: list[str], margin: int) -> list[str]:
    """The lines between a group's opening rule and the rule that ends its first member."""
    member: list[str] = []
    for line in lines:
        rule = _GROUP_RULE.fullmatch(line)
        if rule and rule["opens"] and len(rule["indent"]) == margin:
            continue
        if rule and not rule["opens"] and len(rule["indent"]) == margin + 2:
            break
        member.append(line)
    return member


def compose(fingerprints: ErrorFingerprints, grouping: Grouping) -> str:
    """The fingerprint of an error under a grouping: `name:message:stack`.

    Raises:
        InvalidArgument: the grouping is none of ours.
    """
    stacks = {
        "exact": fingerprints.stack_exact_hash,
        "normalized": fingerprints.stack_normalized_hash,
        "portable": fingerprints.stack_portable_hash,
    }
    if grouping not in stacks:
        raise InvalidArgument("grouping_strategy", grouping, f"one of {', '.join(GROUPINGS)}")
    return f"{fingerprints.name_hash}:{fingerprints.message_hash}:{stacks[grouping]}"


def parse_fingerprint(text: str) -> Fingerprint:
    """Take a composed fingerprint apart.

    Raises:
        InvalidArgument: it has not three parts.
    """
    parts = text.split(":")
    if len(parts) != len(Fingerprint._fields) or not all(parts):
        raise InvalidArgument("fingerprint", text, "three hashes, name:message:stack")
    return Fingerprint(*parts)
