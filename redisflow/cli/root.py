"""The `redisflow` group: which commands there are, and what an error looks like.

Commands are named in one literal table and imported when called. Whatever goes wrong by a person's mistake
or by the server's absence is one line on stderr: exit code 2 for a wrong call, 1 for a failure, 130 after
Ctrl-C. A traceback means a bug.
"""

from __future__ import annotations

import importlib
import keyword
import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from redisflow.cli.options import Options, server_options
from redisflow.cli.text import clean
from redisflow.model.errors import RedisflowError, UsageError

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "demo": ("demo", "Run a real workflow, kill a worker in the middle, watch the rescue."),
    "init": ("scaffold", "Write a small workflow to start from."),
    "dev": ("dev", "Server, worker, reclaimer and dashboard in one, with reload and a live tail."),
    "worker": ("services", "Run the steps of workflows."),
    "reclaimer": ("services", "Take steps back from dead workers, end late runs, delete old ones."),
    "ui": ("ui", "The dashboard and the HTTP API."),
    "submit": ("submit", "Submit a run."),
    "cancel": ("submit", "Cancel runs."),
    "retry": ("again", "Start failed runs anew where they stopped."),
    "resume": ("again", "Look live runs over once more."),
    "rerun": ("again", "Repeat a step of an ended run, and all that depends on it."),
    "runs": ("look", "List runs, newest first."),
    "show": ("show", "Show a run and its steps."),
    "events": ("events", "Print the events of a run."),
    "logs": ("logs", "Print what the steps of a run wrote."),
    "errors": ("failures", "List what fails, most frequent first."),
    "error": ("failures", "Show one error, its stack and where it happened."),
    "top": ("top", "Throughput, queues, workers and newest failures, live."),
    "stats": ("stats", "Throughput, success, durations, retries and queues."),
    "workflows": ("look", "List registered workflows."),
    "versions": ("look", "List the versions of a workflow, newest first."),
    "workers": ("workers", "List workers: what each runs, and when it was seen."),
    "queues": ("look", "What is due, delayed and running in each queue."),
    "export": ("transfer", "Print the events of runs as JSON lines."),
    "import": ("transfer", "Write runs from JSON lines."),
    "doctor": ("doctor", "Check the server and its settings."),
    "bench": ("bench", "Measure the server: submit, claims, drain, latency."),
    "verify": ("verify", "Check that every key is what the events imply."),
}
"""Command name to the module that holds it and its line in the help."""


class Root(click.Group):
    """A group that imports a command when it is called, and prints errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, imported; None where there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"redisflow.cli.{COMMANDS[cmd_name][0]}")
        name = cmd_name + "_" * keyword.iskeyword(cmd_name)  # no function can be called `import`
        return getattr(module, name)  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone: importing them would cost half a second."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit; where click would print a usage text, print one line."""
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx else "redisflow"
            fail(f"{error.format_message().rstrip('.')}. See `{where} --help`", 2)
        except click.ClickException as error:
            fail(error.format_message(), error.exit_code)
        except UsageError as error:
            fail(str(error), 2)
        except RedisflowError as error:
            fail(str(error), 1)
        except click.Abort:
            sys.exit(130)
        sys.exit(result if isinstance(result, int) else 0)


def fail(message: str, code: int) -> None:
    """Print an error in one line, and exit."""
    click.echo(f"Error: {clean(' '.join(message.split()))}", err=True)
    sys.exit(code)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from redisflow import __version__

    click.echo(f"redisflow {__version__}")
    ctx.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@server_options
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Durable workflows and a distributed work queue on Redis.

    Without --url (or REDISFLOW_URL) commands use the embedded server of this folder.
    """
    ctx.ensure_object(Options)
    logging.getLogger("redisflow").addHandler(logging.NullHandler())  # errors are told, not logged
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
