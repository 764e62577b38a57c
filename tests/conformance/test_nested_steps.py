"""Step ids of several segments (`group/step`): registered, run, found and repeated like any other."""

from __future__ import annotations

import json

import pytest

from redisflow.model.errors import InvalidArgument
from redisflow.model.states import RunSubmission, StepDefinition, WorkflowRegistration
from tests.conformance.conftest import Contract

STEPS = {"load/eu": (), "load/us.1": (), "load": ("load/eu", "load/us.1"), "a/b/c/d/e/f/g/h": ("load",)}


def registration(*ids: str) -> WorkflowRegistration:
    steps = dict.fromkeys(ids, ()) or STEPS
    return WorkflowRegistration(
        slug="nested", name="Nested",
        steps=tuple(StepDefinition(id=name, name=name, dependencies=needs, export_output=True) for name, needs in steps.items()),
    )  # fmt: skip


async def finish(contract: Contract, run_id: str, step_id: str, output: object) -> dict[str, object]:
    """Claim and complete a step; gives the outputs that it was handed."""
    claim = await contract.claim_scheduled_step("nested", run_id, step_id, "w-1", dependencies=())
    assert claim is not None
    await contract.complete_step(claim, json.dumps(output))
    return {name: json.loads(text) for name, text in claim.outputs.items()}


async def test_a_run_of_nested_steps(contract: Contract) -> None:
    await contract.register_workflow(registration())
    assert [step.id for step in await contract.get_workflow_steps("nested")] == list(STEPS)
    assert await contract.calculate_dependents("nested", "load/eu") == ["load", "a/b/c/d/e/f/g/h"]
    version = await contract.get_current_workflow_version("nested")
    assert version is not None
    assert version.step_manifest == tuple(STEPS)

    run_id = (await contract.submit_run(RunSubmission(workflow_slug="nested"))).run_id
    assert {step.step_id for step in await contract.list_scheduled_steps()} == {"load/eu", "load/us.1"}
    assert await contract.is_step_claimable("nested", run_id, "load/us.1")
    assert not await contract.is_step_claimable("nested", run_id, "load/us")
    await finish(contract, run_id, "load/eu", 1)
    assert (await contract.get_active_workers()).workers[0].total_steps_processed == 1
    await finish(contract, run_id, "load/us.1", [2])
    assert await finish(contract, run_id, "load", None) == {"load/eu": 1, "load/us.1": [2]}
    await finish(contract, run_id, "a/b/c/d/e/f/g/h", 4)
    run = await contract.get_run(run_id)
    assert run is not None
    assert run.status == "completed"
    assert [record.step_id for record in await contract.load_run("nested", run_id)] == list(STEPS)
    assert (await contract.get_step_duration(step_id="load/eu")).count == 1


async def test_saves_logs_and_repeats_of_nested_steps(contract: Contract) -> None:
    await contract.register_workflow(registration())
    run_id = (await contract.submit_run(RunSubmission(workflow_slug="nested"))).run_id
    await contract.save_step_logs(
        "nested", run_id, "load/eu", [{"timestamp": 5, "stream": "stdout", "message": "hi", "attempt_number": 1}]
    )
    logs = await contract.load_step_logs("nested", run_id, "load/eu")
    assert logs
    assert [log.message for log in logs] == ["hi"]
    assert await contract.load_step_logs("nested", run_id, "load") is None
    for step_id in ("load/eu", "load/us.1"):
        await finish(contract, run_id, step_id, step_id)
    await contract.cancel_run(run_id)

    child = await contract.rerun_from(run_id, "load/us.1")
    states = await contract.load_step_states(child)
    assert (states["load/eu"].status, states["load/us.1"].status) == ("completed", "scheduled")
    assert await contract.delete_step_events("nested", child, ["load/eu"]) > 0
    assert "load/eu" not in await contract.load_step_states(child)
    copied = await contract.copy_step_events("nested", run_id, child, ["load/eu"])
    assert copied == len(await contract.load_events("nested", run_id, "step", "load/eu"))


@pytest.mark.parametrize(
    "step_id", ["", "/", "a/", "/a", "a//b", "a b/c", "a/b\n", "a/" * 8 + "a", "x" * 101, "a|b", "ä/b"]
)
async def test_what_is_no_step_id(contract: Contract, step_id: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await contract.register_workflow(registration(step_id))
    assert refused.value.argument == "steps"
    assert await contract.list_workflow_metadata() == []
    with pytest.raises(InvalidArgument) as refused:
        await contract.is_step_claimable("nested", "r1", step_id)
    assert refused.value.argument == "step_id"


async def test_no_step_id_leaves_the_spool_folder(contract: Contract) -> None:
    spool = contract.settings.home.absolute() / "spool"
    paths = {contract.get_step_output_path("nested", "r1", step_id, 1) for step_id in ("../../x", "../x", "a/b", "a")}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {spool}
    assert all(path.resolve().parent == spool.resolve() for path in paths)
