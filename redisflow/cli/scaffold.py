"""`init`: a small workflow to start from, which runs as it is."""

from __future__ import annotations

from pathlib import Path

import click

from redisflow.cli.text import clean
from redisflow.model.errors import UsageError

TEMPLATE = '''"""A first workflow: greet somebody, twice over.

    redisflow dev {file}
    redisflow submit hello '{{"name": "Ada"}}' --wait
"""

from pydantic import BaseModel

from redisflow import Retry, StepContext, Workflow


class Guest(BaseModel):
    name: str


hello = Workflow("hello", input=Guest, output=str)


@hello.step
def greeting(guest: Guest) -> str:
    return f"Hello, {{guest.name}}!"


@hello.step
def question(guest: Guest) -> str:
    return f"How are you, {{guest.name}}?"


@hello.step(retry=Retry(attempts=3, delay="1s", factor=2), export=True)
async def letter(greeting: str, question: str, ctx: StepContext) -> str:
    # Parameters named like steps are their outputs: this one runs once both are done. It may run again after
    # a crash, so pass ctx.idempotency_key, the same in every attempt, to whatever must happen only once.
    return f"{{greeting}} {{question}}"
'''
"""What a new workflow looks like; `{file}` is its path."""


@click.command()
@click.argument("path", default="flow.py", type=click.Path(path_type=Path))
def init(path: Path) -> None:
    """Write a small workflow to start from (flow.py by default)."""
    target = path / "flow.py" if path.is_dir() else path
    if target.suffix != ".py" or not target.stem.isidentifier():
        raise UsageError(f"{target} is no name of a Python module: write for example flow.py")
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.format(file=target.name))
    except FileExistsError:
        raise UsageError(f"{target} exists already: give another name") from None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from None
    shown = clean(str(target))
    click.echo(f"Wrote {shown}. Next, in two terminals:\n")
    click.echo(f"  redisflow dev {shown}")
    click.echo("""  redisflow submit hello '{"name": "Ada"}' --wait""")
