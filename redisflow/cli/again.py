"""`retry`, `resume` and `rerun`: what gives a run another chance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
from redisflow.cli.submit import print_result, read_input
from redisflow.cli.text import clean, print_json
from redisflow.client import Client
from redisflow.model.errors import RunNotFound, TransitionRefused, UsageError

Act = Callable[[Client, str], Awaitable[dict[str, Any]]]


@click.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...")
@click.option("--reason", help="Recorded in the run's history.")
@json_option
@server_options
@pass_options
def retry(options: Options, run_ids: tuple[str, ...], reason: str | None, as_json: bool) -> None:
    """Start failed runs anew where they stopped.

    Completed steps stay; attempts and the timeout start afresh. Exits with 1 where a run has not failed.
    """

    async def act(client: Client, run_id: str) -> dict[str, Any]:
        return {"scheduledSteps": await client.retry(run_id, reason)}

    _each(options, run_ids, act, "{runId} retried, {scheduledSteps} scheduled", as_json)


@click.command()
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...")
@json_option
@server_options
@pass_options
def resume(options: Options, run_ids: tuple[str, ...], as_json: bool) -> None:
    """Look live runs over once more, so that whatever is ready is scheduled.

    Exits with 1 where a run has ended.
    """

    async def act(client: Client, run_id: str) -> dict[str, Any]:
        completed, left = await client.backend.resume_run(run_id)
        return {"completedSteps": completed, "stepsLeft": left}

    _each(options, run_ids, act, "{runId} resumed, {completedSteps} completed, {stepsLeft} left", as_json)


def _each(options: Options, run_ids: tuple[str, ...], act: Act, told: str, as_json: bool) -> None:
    """Do something to each run; a refusal is told and does not stop the others, but the exit code is 1."""
    answers = run_async(_answers(options, run_ids, act))
    if as_json:
        print_json(answers)
    for answer in answers:
        if "error" in answer:
            click.echo(f"Error: {clean(answer['error'])}", err=True)
        elif not as_json:
            click.echo(told.format(**answer))
    if any("error" in answer for answer in answers):
        raise click.exceptions.Exit(1)


async def _answers(options: Options, run_ids: tuple[str, ...], act: Act) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    async with open_client(options) as client:
        for run_id in run_ids:
            try:
                answers.append({"runId": run_id, **await act(client, run_id)})
            except (RunNotFound, TransitionRefused, UsageError) as error:
                answers.append({"runId": run_id, "error": str(error)})
    return answers


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--from", "from_step", required=True, metavar="STEP", help="The step to repeat.")
@click.option("--input", "given", metavar="JSON", help="A new input: JSON text, @FILE, or - for stdin.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result as JSON.")
@json_option
@server_options
@pass_options
def rerun(options: Options, run_id: str, from_step: str, given: str | None, wait: bool, as_json: bool) -> None:
    """Repeat a step of an ended run, and all that depends on it, in a new run.

    Prints the new run's id. Outputs of other steps are kept, and so is the input without --input. With
    --wait prints the result as JSON, and exits with 1 if the run did not complete.
    """
    value = None if given is None else read_input(given)
    if given is not None and value is None:
        raise UsageError("--input is null, which stands for the old input: leave --input out to keep that")
    run_async(_rerun(options, run_id, from_step, value, wait, as_json))


async def _rerun(options: Options, run_id: str, from_step: str, value: Any, wait: bool, as_json: bool) -> None:
    async with open_client(options, patient=wait) as client:
        run = await client.rerun(run_id, from_step, value)
        if wait:
            if not as_json:
                click.echo(f"run {run.id}", err=True)
            await print_result(run, None, as_json)
        elif as_json:
            print_json({"runId": run.id, "isNew": run.is_new})
        else:
            click.echo(run.id)
