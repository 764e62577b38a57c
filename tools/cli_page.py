"""Writes docs/reference/cli.md: every command with its arguments and options, as click has them.

    python -m tools.cli_page

The text is that of `--help`, so there is nothing to keep in step by hand. A test fails where the committed page says something
else.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from redisflow.cli.root import COMMANDS, main

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "cli.md"
COMMON: Final = {"--url", "--namespace", "--help"}
HEAD: Final = """# Commands

<!-- Made by `make docs` from redisflow/cli: change the commands, not this page. -->

Every command that talks to a server takes these two options, before or after its name:

| option | meaning |
|---|---|
| `--url` | Server, such as `redis://host:6379/0`. Default: `REDISFLOW_URL`, else the embedded server of this folder. |
| `--namespace` | Prefix of all keys. Default: `REDISFLOW_NAMESPACE`, else `redisflow`. |

Schemes of URLs are `redis`, `rediss` (TLS) and `unix`, and `redis+cluster`, `rediss+cluster`, `redis+sentinel` and
`rediss+sentinel`, which may name several hosts with commas between them. Options of TLS stand behind a `?`, such as `ssl_ca_certs`.

Exit codes: 0 success, 1 failure (also of the run that `--wait` waits for), 2 a wrong call, 130 after Ctrl-C. An error is one line
on stderr. Durations are written `500ms`, `30s`, `1m30s`, `2h`, `7d`.
"""


def render() -> str:
    """The page."""
    root = click.Context(main, info_name="redisflow")
    parts = [HEAD]
    for name in COMMANDS:
        command = main.get_command(root, name)
        assert command is not None
        parts.append(_section(name, command, root))
    return "\n".join(parts)


def _section(name: str, command: click.Command, root: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=root)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    about = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    lines = [f"## `{name}`", "", "```text", usage, "```", "", about, ""]
    if rows := list(_options(command, context)):
        lines += ["| option | meaning |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or COMMON.intersection(parameter.opts):
            continue
        record = parameter.get_help_record(context)
        if record is not None:
            option, text = (" ".join(html.escape(part).split()).replace("|", "&#124;") for part in record)
            yield f"| <code>{option}</code> | {text} |"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
