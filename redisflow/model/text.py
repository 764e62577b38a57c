"""Text that comes from runs, made fit for a terminal and a log.

Ids, messages and outputs may hold anything. Escape sequences would let them draw on a terminal or hide in it, line breaks would
let them pretend to be lines of a log, so every control character, and every one that turns the direction of text, is shown by its
code.
"""

from __future__ import annotations

import re
from typing import Final

UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def clean(text: str) -> str:
    """The text with each character that could act on a terminal replaced by its code."""
    return UNSAFE.sub(lambda found: _code(found.group()), text)


def clean_lines(text: str) -> str:
    """The same, with its line breaks and tabs left: for tracebacks."""
    return "\n".join(
        line if UNSAFE.search(line) is None else clean(line.replace("\t", "    ")) for line in text.split("\n")
    )


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
