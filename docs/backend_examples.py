"""One working example for each group of the backend contract: `docs/backend.md` shows them, and the tests run each of them.

Each takes the opened backend of a fresh namespace, and does nothing that the contract does not promise.
"""

from __future__ import annotations

from redisflow.backend.base import Backend
from redisflow.model.states import GitInfo, RunSubmission, StepDefinition, WorkflowRegistration, WorkflowVersion

SHOP = WorkflowRegistration(
    slug="shop",
    name="Shop",
    input_schema_json={"type": "object", "required": ["cents"]},
    steps=(
        StepDefinition(id="price", name="Price", dependencies=(), export_output=False),
        StepDefinition(id="charge", name="Charge", dependencies=("price",), export_output=True),
    ),
)


async def lifecycle(backend: Backend) -> None:
    await backend.initialize()  # a second call changes nothing
    assert await backend.backend_ready()
    await backend.initialize_run("shop", "order-1")
    assert not await backend.run_exists("shop", "order-1")
    await backend.close()


async def runs(backend: Backend) -> None:
    await backend.register_workflow(SHOP)
    order = RunSubmission(workflow_slug="shop", input={"cents": 499}, idempotency_key="o-1", tags=("eu",), priority=5)
    submitted = await backend.submit_run(order)
    assert (await backend.submit_run(order)).run_id == submitted.run_id  # the same key gives the same run

    due = (await backend.list_scheduled_steps())[0]
    assert (due.run_id, due.step_id) == (submitted.run_id, "price")
    claim = await backend.claim_scheduled_step("shop", due.run_id, due.step_id, "worker-1", dependencies=[])
    assert claim is not None
    assert claim.input == '{"cents":499}'
    assert await backend.claim_scheduled_step("shop", due.run_id, due.step_id, "worker-2", dependencies=[]) is None

    found, total = await backend.list_runs("shop", status=["running"], tags=["eu"], limit=10)
    assert (found[0].run_id, total) == (submitted.run_id, 1)
    assert (await backend.cancel_run(submitted.run_id, "the customer left")).cancelled
    assert not (await backend.cancel_run(submitted.run_id)).cancelled


async def workflows(backend: Backend) -> None:
    await backend.register_workflow(SHOP)
    assert [step.id for step in await backend.get_workflow_steps("shop")] == ["price", "charge"]
    assert await backend.calculate_dependents("shop", "price") == ["charge"]
    git = GitInfo(commit="4b825dc642cb6eb9a060e54bf8d69288fbee4904", branch="main", dirty=False)
    await backend.create_workflow_version(
        WorkflowVersion(
            workflow_slug="shop",
            version_id="sha256:of-last-year",
            version_number=1,
            created_at=1_700_000_000_000_000,
            step_manifest=("price",),
            total_steps=1,
            git=git,
        )
    )
    assert [version.version_number for version in await backend.list_workflow_versions("shop")] == [2, 1]


async def appending(backend: Backend) -> None:
    await backend.register_workflow(SHOP)
    run = await backend.submit_run(RunSubmission(workflow_slug="shop", input={"cents": 499}))
    line = {"type": "LogEntry", "category": "step", "stepId": "price", "attemptNumber": 1, "stream": "stdout"}
    first = await backend.append_event("shop", run.run_id, {**line, "message": "looked up"})
    ids = await backend.batch_append_events([("shop", run.run_id, {**line, "message": text}) for text in ("a", "b")])
    assert [int(first) < int(event_id) for event_id in ids] == [True, True]  # ids are numbers that rise in a run


async def step_saves(backend: Backend) -> None:
    await backend.save_workflow_start(
        "shop", "order-1", version_id="v1", workflow_attempt_number=1, has_input_schema=False, has_input=False
    )
    await backend.save_step_scheduled("shop", "order-1", "price", available_at=0, reason="initial", attempt_number=1)
    await backend.save_step_start("shop", "order-1", "price", "worker-1", dependencies=[], attempt_number=1)
    await backend.save_step_checkpoint(
        "shop", "order-1", "price", name="rate", sequence_number=0, attempt_number=1, data="1.08"
    )
    await backend.save_step_failed_and_schedule_retry(
        "shop", "order-1", "price", ConnectionError("the bank is away"), duration_us=2_000, attempt_number=1,
        failure_reason="execution-error", next_retry_at=0, available_at=0, next_attempt_number=2, retry_delay_ms=0,
    )  # fmt: skip
    await backend.save_step_start("shop", "order-1", "price", "worker-1", dependencies=[], attempt_number=2)
    await backend.save_step_complete("shop", "order-1", "price", 499, duration_us=1_500, attempt_number=2)
    (price,) = await backend.load_run("shop", "order-1")
    assert (price.status, price.output) == ("completed", "499")


async def workflow_saves(backend: Backend) -> None:
    await backend.save_run_submitted(
        "shop", "order-1", version_id="v1", available_at=0, input='{"cents":499}', tags=["eu"]
    )
    await backend.save_workflow_start(
        "shop", "order-1", version_id="v1", workflow_attempt_number=1, has_input_schema=False, has_input=True
    )
    await backend.save_workflow_complete(
        "shop", "order-1", {"charge": "ok"}, workflow_attempt_number=1, duration_us=3_500, total_steps=2
    )
    run = await backend.get_run("order-1")
    assert run is not None
    assert run.status == "completed"


async def histories(backend: Backend) -> None:
    await step_saves(backend)  # the example of the saves of step events
    events = await backend.load_events("shop", "order-1", category="step", types=["StepStarted", "StepCompleted"])
    assert [event.type for event in events] == ["StepStarted", "StepStarted", "StepCompleted"]
    by_step = await backend.load_step_events_for_projection("shop", "order-1")
    assert list(by_step) == ["price"]
    assert await backend.get_failed_steps("shop", "order-1") == []  # it was tried again
    assert await backend.load_step_logs("shop", "order-1", "price") is None


async def figures(backend: Backend) -> None:
    await step_saves(backend)  # the example of the saves of step events
    failures = await backend.get_errors_list(grouping_strategy="normalized", limit=10)
    (group,) = failures.errors
    assert (group.error_name, group.count) == ("ConnectionError", 1)
    detail = await backend.get_error_detail(group.fingerprint, "normalized")
    assert detail.occurrences[0].step_id == "price"
    assert (await backend.get_retry_analysis(workflow_slug="shop")).total_retries == 1
    assert (await backend.get_queue_depth("shop")).running_runs == 1


async def repeats(backend: Backend) -> None:
    await backend.register_workflow(SHOP)
    parent = (await backend.submit_run(RunSubmission(workflow_slug="shop", input={"cents": 499}))).run_id
    await backend.cancel_run(parent)
    again = await backend.rerun_from(parent, "price", {"cents": 250})
    assert await backend.get_run(again) is not None
    assert await backend.copy_entire_run("shop", parent, "order-copy") > 0
    assert await backend.delete_workflow_terminal_events("shop", "order-copy") == 1  # it is live again
    assert await backend.resume_run("order-copy") == (0, 2)


async def workers(backend: Backend) -> None:
    await backend.register_workflow(SHOP)
    run = await backend.submit_run(RunSubmission(workflow_slug="shop", input={"cents": 499}))
    await backend.claim_scheduled_step("shop", run.run_id, "price", "worker-1", dependencies=[], slot_index=0)
    found = await backend.get_active_workers(stale_threshold_us=30_000_000)
    assert [worker.worker_id for worker in found.workers] == ["worker-1"]
    worker = await backend.get_worker_by_id("worker-1")
    assert worker is not None
    assert worker.active_steps[0].run_id == run.run_id
