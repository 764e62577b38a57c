"""The hash of a step's code, by which a version of a workflow is told from the next.

The source text is hashed where there is one, so that the hash is the same under every version of Python. It
is read when the step is declared: later the file may have been edited, and would no longer be what runs. Code
typed at a prompt has no file; its bytecode stands in.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap
from collections.abc import Callable
from types import CodeType
from typing import Any


def code_hash(fn: Callable[..., Any]) -> str:
    """Hex SHA-256 of the function's source, or of its bytecode where there is no source."""
    inner = inspect.unwrap(fn)
    inner = getattr(inner, "func", inner)  # functools.partial
    text = _source(inner)
    if text is None:
        code = getattr(inner, "__code__", None)
        text = _describe(code) if code is not None else repr(type(inner))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _source(fn: Any) -> str | None:
    if getattr(getattr(fn, "__code__", None), "co_filename", "") == "<string>":
        return None  # made by exec: from Python 3.13 on inspect takes the text of `python -c` for its source
    try:
        return textwrap.dedent(inspect.getsource(fn))
    except (OSError, TypeError, SyntaxError, IndexError):
        return None


def _describe(code: CodeType) -> str:
    constants = (_describe(c) if isinstance(c, CodeType) else _constant(c) for c in code.co_consts)
    return "\n".join((code.co_name, code.co_code.hex(), repr(code.co_names), repr(code.co_varnames), *constants))


def _constant(value: object) -> str:
    # the order of a set of strings changes from process to process
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
