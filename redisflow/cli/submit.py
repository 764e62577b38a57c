"""`submit` and `cancel`: what changes runs.

The run id goes to stdout, so that `run=$(redisflow submit …)` works; with `--wait` the result does, and the
id goes to stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from redisflow.cli.options import (
    Options,
    json_option,
    open_client,
    pass_options,
    run_async,
    server_options,
)
from redisflow.cli.text import clean, print_json
from redisflow.client import Run
from redisflow.model.errors import (
    InvalidInput,
    RedisflowError,
    ResultTimeout,
    RunCancelled,
    RunFailed,
    RunNotFound,
    UsageError,
)
from redisflow.settings import parse_duration


class DurationType(click.ParamType[int]):
    """A duration such as `30s`, as microseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Microseconds; a usage error where it is no duration."""
        try:
            return value if isinstance(value, int) else parse_duration(value)
        except (ValueError, OverflowError) as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()


@click.command()
@click.argument("workflow")
@click.argument("given", required=False, metavar="[INPUT]")
@click.option("--key", help="Idempotency key: a second submission with it gives the first run.")
@click.option("--priority", type=click.IntRange(-100, 100), default=0, help="Higher is more urgent.")
@click.option("--tag", "tags", multiple=True, help="A word to find the run by; may be repeated.")
@click.option("--delay", type=DURATION, help="How long to wait before it may start, such as 90s.")
@click.option("--timeout", type=DURATION, help="Time within which it must end, such as 10m.")
@click.option("--run-id", help="An id of your own.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result as JSON.")
@click.option("--wait-timeout", type=DURATION, help="How long to wait; the run itself goes on.")
@json_option
@server_options
@pass_options
def submit(
    options: Options, /, workflow: str, given: str | None, wait: bool, wait_timeout: int | None,
    as_json: bool, **how: Any,
) -> None:  # fmt: skip
    """Submit a run of a registered workflow.

    INPUT is JSON text, @FILE, or - for stdin. Prints the run id. With --wait prints the result as JSON, and
    exits with 1 if the run did not complete.
    """
    value = None if given is None else read_input(given)
    for name in ("delay", "timeout"):
        how[name] = None if how[name] is None else how[name] / 1e6
    run_async(_submit(options, workflow, value, how, wait or wait_timeout is not None, wait_timeout, as_json))


async def _submit(
    options: Options, workflow: str, value: Any, how: dict[str, Any], wait: bool, wait_timeout: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    async with open_client(options, patient=wait) as client:
        run = await client.submit(workflow, value, **how)
        if not wait:
            if as_json:
                print_json({"runId": run.id, "isNew": run.is_new})
            else:
                click.echo(run.id)
            return
        if not as_json:
            note = "" if run.is_new else " (its key was known)"
            click.echo(f"run {run.id}{note}", err=True)
        await print_result(run, wait_timeout, as_json)


async def print_result(run: Run[Any], timeout: int | None, as_json: bool) -> None:
    """Wait for a run and print its output; `timeout` in µs."""
    answer: dict[str, Any] = {"runId": run.id, "isNew": run.is_new}
    try:
        result = await run.result(timeout=None if timeout is None else timeout / 1e6)
    except (RunFailed, RunCancelled, ResultTimeout) as error:
        if as_json:
            print_json({**answer, **_ending(error)})
        raise
    print_json({**answer, "status": "completed", "result": result} if as_json else result)


def _ending(error: RedisflowError) -> dict[str, Any]:
    """How a run that gave no result ended, for a program."""
    if isinstance(error, RunFailed):
        problem = {"name": error.error_name, "message": error.error_message, "step": error.step_id}
        return {"status": "failed", "error": problem}
    if isinstance(error, RunCancelled):
        return {"status": "cancelled", "reason": error.reason}
    return {"status": "live", "error": {"name": "ResultTimeout", "message": str(error), "step": None}}


def read_input(given: str) -> Any:
    """The value of an INPUT argument.

    Raises:
        UsageError: the file cannot be read.
        InvalidInput: it is no JSON.
    """
    what, text = "INPUT", given
    try:
        if given == "-":
            what, text = "stdin", sys.stdin.buffer.read().decode()
        elif given.startswith("@"):
            what = given[1:]
            text = Path(what).read_bytes().decode()
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(what, [("$", "is not UTF-8 text")]) from None
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise InvalidInput(what, [("$", "is nested too deeply")]) from None
    except ValueError as error:
        hint = "" if what != "INPUT" else "; write text in double quotes inside single ones, such as '\"x\"'"
        raise InvalidInput(what, [("$", f"is not JSON, {error}{hint}")]) from None


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


@click.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...")
@click.option("--reason", help="Recorded in the run's history.")
@json_option
@server_options
@pass_options
def cancel(options: Options, run_ids: tuple[str, ...], reason: str | None, as_json: bool) -> None:
    """Cancel runs.

    A run that has ended is left as it is. Exits with 1 where a run does not exist.
    """
    if run_async(_cancel(options, run_ids, reason, as_json)):
        raise click.exceptions.Exit(1)


async def _cancel(options: Options, run_ids: tuple[str, ...], reason: str | None, as_json: bool) -> int:
    """The number of runs that could not be cancelled; each is told, the others are cancelled all the same."""
    answers: list[dict[str, Any]] = []
    async with open_client(options) as client:
        for run_id in run_ids:
            try:
                result = await client.cancel(run_id, reason)
            except (RunNotFound, UsageError) as error:
                answers.append({"runId": run_id, "cancelled": False, "status": None, "error": str(error)})
            else:
                answers.append({"runId": run_id, "cancelled": result.cancelled, "status": result.status})
    if as_json:
        print_json(answers)
    for answer in answers:
        if "error" in answer:
            click.echo(f"Error: {clean(answer['error'])}", err=True)
        elif not as_json:
            ending = "cancelled" if answer["cancelled"] else f"had {answer['status']} already"
            click.echo(f"{answer['runId']} {ending}")
    return sum("error" in answer for answer in answers)
