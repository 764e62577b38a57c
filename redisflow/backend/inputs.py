"""A run's input held to the JSON Schema of its workflow, wherever it comes from: a submit by slug, `submit_run`, a rerun.

A submit by a `Workflow` does not come this way: there the input is validated as the type that was declared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redisflow.backend.schemas import make_validator
from redisflow.codec import decode_payload
from redisflow.model.errors import InvalidInput
from redisflow.model.workflow import Plan

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

MOST: Final = 256
_validators: dict[str, Draft202012Validator] = {}
"""By version, since a batch of thousands has one schema; the oldest goes where there are more."""


def check_input(plan: Plan, text: str | None) -> None:
    """Hold an input to the schema of its workflow.

    Args:
        plan: the workflow.
        text: JSON text; None where there is no input.

    Raises:
        InvalidInput: says which fields do not fit, by their dotted paths.
    """
    what = f"input of workflow {plan.slug!r}"
    if text is None and plan.input_required:
        raise InvalidInput(what, [("$", "is required")])
    if plan.input_schema is None or text is None:
        return
    validator = _validators.get(plan.version)
    if validator is None:
        while len(_validators) >= MOST:
            del _validators[next(iter(_validators))]
        validator = _validators[plan.version] = make_validator(plan.input_schema)
    problems = [
        (".".join(str(part) for part in error.absolute_path) or "$", error.message)
        for error in validator.iter_errors(decode_payload(text))
    ]
    if problems:
        raise InvalidInput(what, sorted(problems))
