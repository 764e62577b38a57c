"""Writes docs/backend.md: the backend contract as the code has it, and an example for each group.

    python -m tools.backend_page

Everything on the page comes from the source: groups are the classes that `Backend` is made of, their text and that of each
method is the docstring, and the examples are the functions of `docs/backend_examples.py`. A test fails where the committed page
says something else.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from docs import backend_examples
from redisflow.backend import base
from redisflow.backend.histories import Histories
from redisflow.backend.saves_steps import Appends, StepSaves
from redisflow.backend.saves_workflow import WorkflowSaves

PAGE: Final = Path(__file__).parents[1] / "docs" / "backend.md"
WIDTH: Final = 100
GROUPS: Final[dict[type[Any], tuple[str, Callable[..., Any]]]] = {
    base.Lifecycle: ("Opening and closing", backend_examples.lifecycle),
    base.Runs: ("Runs and their queue", backend_examples.runs),
    base.Workflows: ("Workflows and versions", backend_examples.workflows),
    Appends: ("Appending events", backend_examples.appending),
    StepSaves: ("Saves of step events", backend_examples.step_saves),
    WorkflowSaves: ("Saves of run events", backend_examples.workflow_saves),
    Histories: ("Histories", backend_examples.histories),
    base.Figures: ("Analytics", backend_examples.figures),
    base.Repeats: ("Retries, reruns, copies, deletions", backend_examples.repeats),
    base.Workers: ("Workers", backend_examples.workers),
}
"""Title and example of every class of the contract, in the order of the page."""
HEAD: Final = """# The backend contract

<!-- Made by `make docs` from redisflow/backend and docs/backend_examples.py: change those, not this page. -->

{about}

`RedisBackend` implements all of it, and `tests/conformance/` holds it to the contract. Models of events and states stand in
`redisflow/model/`; `to_wire()` gives their JSON form.

```python
{opening}
```

The examples begin with this:

```python
{shared}
```
"""
OPENING: Final = """from redisflow.backend.redis import RedisBackend
from redisflow.settings import Settings

backend = RedisBackend(Settings(url="redis://127.0.0.1:6379/0", namespace="shop"))
await backend.initialize()"""


def render() -> str:
    """The page."""
    source = inspect.getsource(backend_examples)
    shared = source[source.index("from redisflow.model") :].partition("\n\n\n")[0]
    about = inspect.getdoc(base) or ""
    parts = [HEAD.format(about=about, opening=OPENING, shared=shared)]
    for group, (title, example) in GROUPS.items():
        parts.append(f"## {title}\n\n{inspect.getdoc(group)}\n\n```python\n{_body(example)}\n```\n")
        parts += [_method(method) for method in _methods(group)]
    return "\n".join(parts)


def _body(example: Callable[..., Any]) -> str:
    """What an example does, without its head."""
    return textwrap.dedent(inspect.getsource(example).partition("\n")[2]).rstrip()


def _methods(group: type[Any]) -> Iterator[ast.AsyncFunctionDef | ast.FunctionDef]:
    (declared,) = ast.parse(textwrap.dedent(inspect.getsource(group))).body
    assert isinstance(declared, ast.ClassDef)
    for node in declared.body:
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node


def _method(node: ast.AsyncFunctionDef | ast.FunctionDef) -> str:
    text = ast.get_docstring(node) or ""
    first = " ".join(text.split("\n\n")[0].split())
    _, found, raised = text.partition("Raises:\n")
    lines = [f"### `{node.name}`", "", "```python", _signature(node), "```", "", first]
    if found:
        lines += ["", *(f"- raises {' '.join(item.split())}" for item in _items(raised))]
    return "\n".join(lines) + "\n"


def _items(section: str) -> list[str]:
    """Entries of a docstring's section: what stands deeper goes on with the line above."""
    items: list[str] = []
    lines = textwrap.dedent(section.split("\n\n")[0]).splitlines()
    for line in lines:
        if line.startswith(" ") and items:
            items[-1] += line
        else:
            items.append(line)
    return items


def _signature(node: ast.AsyncFunctionDef | ast.FunctionDef) -> str:
    """As it is called, in one line, or an argument a line where that is too long."""
    arguments = node.args
    arguments.args = arguments.args[1:]  # without self
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    parts = list(_arguments(arguments))
    line = f"{keyword} {node.name}({', '.join(parts)}){returned}"
    if len(line) <= WIDTH:
        return line
    rows = "".join(f"    {part},\n" for part in parts)
    return f"{keyword} {node.name}(\n{rows}){returned}"


def _arguments(arguments: ast.arguments) -> Iterator[str]:
    count = len(arguments.args) - len(arguments.defaults)
    for place, argument in enumerate(arguments.args):
        yield _argument(argument, arguments.defaults[place - count] if place >= count else None)
    if arguments.kwonlyargs:
        yield "*"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _argument(argument, default)
    if arguments.kwarg:
        yield f"**{ast.unparse(arguments.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
