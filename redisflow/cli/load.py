"""Finding workflows: modules and files are imported, and their module-level workflows and tasks collected.

A file is imported under its own name with its folder on `sys.path`, so that what it imports beside itself is
found, and so that a process of its own for a step can import it again. A module that does not import is a
person's mistake: one line says which error, and where.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from redisflow.define import Task, Workflow
from redisflow.model.errors import RedisflowError, UsageError

_OTHERS = ("<frozen", str(Path(os.__file__).parent), str(Path(__file__).parent.parent))


def load_workflows(sources: Iterable[str]) -> list[Workflow[Any, Any]]:
    """Workflows of all given modules and files, each slug once.

    Args:
        sources: dotted modules or paths of files.

    Raises:
        UsageError: one cannot be imported or holds no workflow, or two workflows have the same slug.
    """
    found: dict[str, tuple[Workflow[Any, Any], str]] = {}
    for source in sources:
        mine = workflows_in(load_module(source))
        if not mine:
            raise UsageError(f"{source} holds no Workflow or @task at module level")
        for flow in mine:
            other, where = found.setdefault(flow.slug, (flow, source))
            if other is not flow and other.plan.version != flow.plan.version:
                raise UsageError(
                    f"workflow {flow.slug!r} is declared in {where} and in {source}: give each its own slug"
                )
    return [flow for flow, _ in found.values()]


def workflows_in(module: ModuleType) -> list[Workflow[Any, Any]]:
    """Module-level workflows, those of tasks included, in order of their appearance."""
    flows = (value.workflow if isinstance(value, Task) else value for value in vars(module).values())
    return list(dict.fromkeys(flow for flow in flows if isinstance(flow, Workflow)))


def is_file(source: str) -> bool:
    """Whether a source is meant as a path rather than a dotted module."""
    return source.endswith(".py") or os.sep in source


def load_module(source: str) -> ModuleType:
    """Import a dotted module or a file.

    Raises:
        UsageError: it cannot be imported; the message has type, text and place of the error.
    """
    path = Path(source).absolute() if is_file(source) else None
    if path is not None and not path.is_file():
        raise UsageError(f"there is no file {source}")
    name = path.stem if path else source
    if path is not None and not name.isidentifier():
        raise UsageError(f"{source} cannot be imported: its name must be that of a Python module")
    folder = str(path.parent if path else Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise UsageError(_explain(source, name, error)) from error
    loaded = getattr(module, "__file__", None)
    if path is not None and (loaded is None or Path(loaded).resolve() != path.resolve()):
        raise UsageError(f"{source} cannot be imported as {name!r}: that name belongs to {loaded or 'another module'}")
    return module


def _explain(source: str, name: str, error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        return f"there is no module {name!r}: a file is given by its path, such as flows.py"
    text = " ".join(str(error).split())
    if isinstance(error, SyntaxError):
        place, text = f"{error.filename}:{error.lineno}", error.msg
    else:
        place = _place(error)
    kind = "" if isinstance(error, RedisflowError) else f"{type(error).__name__}: "
    return f"{source} does not import: {kind}{text} ({place})"


def _place(error: BaseException) -> str:
    """File and line of the innermost frame that is the user's own."""
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if not f.filename.startswith(_OTHERS) and "site-packages" not in f.filename]
    frame = (mine or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"
