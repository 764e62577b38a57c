"""From declared steps to the plan: the checks that concern a workflow as a whole, and the translation.

Steps are checked one by one as they are declared; what is left for the end is that there is at least one, and
that what is exported goes with the declared output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redisflow.define.hints import NO_HINT, clash, show
from redisflow.define.payloads import Payload
from redisflow.define.steps import Step
from redisflow.model.errors import DefinitionError
from redisflow.model.workflow import Plan, PlanStep

if TYPE_CHECKING:
    from redisflow.define.workflow import Workflow


def compile_plan(workflow: Workflow[Any, Any], declared: Payload | None, output: Payload | None) -> Plan:
    """Check the whole and translate it.

    Args:
        workflow: with all its steps.
        declared: its declared input.
        output: its declared output.

    Raises:
        DefinitionError: it has no steps, or its exports do not go with its output.
    """
    where = f"workflow {workflow.slug!r}"
    steps = tuple(workflow.steps.values())
    if not steps:
        raise DefinitionError(f"{where} has no steps: declare one with @workflow.step")
    _check_output(where, workflow.output_type, steps)
    return Plan(
        slug=workflow.slug,
        name=workflow.name,
        steps=tuple(_plan_step(step, workflow.queue) for step in steps),
        on_error=workflow.on_error,
        timeout_us=workflow.timeout_us,
        input_schema=declared.schema("validation") if declared else None,
        input_required=_input_required(declared, steps),
        output_schema=output.schema("serialization") if output else None,
    )


def _plan_step(step: Step, queue: str) -> PlanStep:
    return PlanStep(
        id=step.id,
        name=step.id,
        dependencies=step.edges,
        params=step.required_steps,
        queue=step.queue or queue,
        retry=step.retry,
        timeout_us=step.timeout_us,
        export=step.export,
        code=step.code,
    )


def _check_output(where: str, output_type: Any, steps: tuple[Step, ...]) -> None:
    if output_type is NO_HINT:
        return
    exported = [step for step in steps if step.export]
    if not exported:
        raise DefinitionError(
            f"{where} declares output={show(output_type)}, but no step gives it: pass export=True to the "
            f"step whose output it is, for example step {steps[-1].id!r}"
        )
    if len(exported) == 1 and clash(exported[0].returns, output_type):
        raise DefinitionError(
            f"step {exported[0].id!r} of {where} is exported and returns {show(exported[0].returns)}, but "
            f"the workflow declares output={show(output_type)}: make the two agree"
        )


def _input_required(declared: Payload | None, steps: tuple[Step, ...]) -> bool:
    """A declared input is, unless None fits it or each parameter that takes it has a default."""
    takers = [b for step in steps for b in step.bindings if b.source in ("input", "field")]
    if takers and not any(binding.required for binding in takers):
        return False
    if declared is not None:
        return not declared.nullable
    return any(
        binding.required and not _takes_none(step, binding.parameter)
        for step in steps
        for binding in step.bindings
        if binding.source == "input"
    )


def _takes_none(step: Step, parameter: str) -> bool:
    payload = step.payloads[parameter]
    return payload is not None and payload.nullable
