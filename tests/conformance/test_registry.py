"""Registration, metadata and versions of workflows."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from redisflow import Client, Worker, Workflow
from redisflow.backend.git import git_info
from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import InvalidArgument, InvalidInput, ServerUnavailable, StepNotFound, WorkflowNotFound
from redisflow.model.states import StepDefinition, WorkflowRegistration, WorkflowVersion
from redisflow.model.workflow import Plan, PlanStep
from redisflow.settings import Settings
from tests.conftest import TestServer

SCHEMA = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


def definition(name: str, *needs: str, export: bool = False) -> StepDefinition:
    return StepDefinition(id=name, name=name.title(), dependencies=needs, export_output=export)


def registration(**changes: object) -> WorkflowRegistration:
    given: dict[str, object] = {
        "slug": "shop", "name": "Shop", "location": "/srv/shop.py", "input_schema_json": SCHEMA,
        "steps": (definition("a"), definition("b", "a"), definition("c", "a"), definition("d", "b", "c", export=True)),
    }  # fmt: skip
    return WorkflowRegistration.model_validate({**given, **changes})


def plan(code: str, slug: str = "shop") -> Plan:
    return Plan(slug=slug, name=slug, steps=(PlanStep(id="only", name="only", queue=slug, code=code),))


async def test_a_registration_is_found_and_submits_at_once(client: Client) -> None:
    backend, given = client.backend, registration()
    await backend.register_workflow(given)
    found = await backend.get_workflow_metadata("shop")
    assert found is not None
    assert found.model_dump() == given.model_dump(exclude={"steps"})
    assert await backend.list_workflow_metadata() == [found]
    assert await backend.get_workflow_steps("shop") == list(given.steps)
    run = await client.submit("shop", {"id": "o-1"})
    claim = await backend.claim_step(run.id, "a", "w-1")
    assert claim is not None
    current = await backend.get_current_workflow_version("shop")
    assert current is not None
    assert (current.version_number, current.step_manifest, current.total_steps) == (1, ("a", "b", "c", "d"), 4)
    assert (await backend.registered_plan("shop")).version == current.version_id
    for wrong in ({"id": 1}, None):
        with pytest.raises(InvalidInput):
            await client.submit("shop", wrong)


async def test_a_registration_replaces_the_earlier_one_whole(backend: RedisBackend) -> None:
    await backend.register_workflow(registration())
    after = registration(name="New", location=None, input_schema_json=None, steps=(definition("z"),))
    await backend.register_workflow(after)
    found = await backend.get_workflow_metadata("shop")
    assert found is not None
    assert (found.name, found.location, found.input_schema_json) == ("New", None, None)
    assert await backend.get_workflow_steps("shop") == [definition("z")]
    assert [version.version_number for version in await backend.list_workflow_versions("shop")] == [2, 1]


async def test_a_schema_may_be_text_and_steps_in_any_order(backend: RedisBackend) -> None:
    given = registration(input_schema_json='{"type": "null"}', steps=(definition("b", "a"), definition("a")))
    await backend.register_workflow(given)
    found = await backend.registered_plan("shop")
    assert [step.id for step in found.steps] == ["a", "b"]
    assert (found.input_schema, found.input_required) == ({"type": "null"}, False)
    assert await backend.get_workflow_steps("shop") == list(given.steps)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"slug": "a b"}, "slug"),
        ({"steps": ()}, "steps"),
        ({"steps": (definition("a"), definition("a"))}, "steps"),
        ({"steps": (definition("a", "b"), definition("b", "a"))}, "dependencies"),
        ({"steps": (definition("a", "gone"),)}, "dependencies"),
        ({"input_schema_json": "{"}, "inputSchemaJSON"),
        ({"input_schema_json": [1]}, "inputSchemaJSON"),
        ({"input_schema_json": {"type": "text"}}, "inputSchemaJSON"),
    ],
)
async def test_a_wrong_registration_is_refused(
    backend: RedisBackend, changes: dict[str, object], argument: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await backend.register_workflow(registration(**changes))
    assert refused.value.argument == argument
    assert await backend.workflow_slugs() == []


async def test_what_is_not_registered(backend: RedisBackend) -> None:
    assert await backend.get_workflow_metadata("none") is None
    assert await backend.get_workflow_steps("none") == []
    assert await backend.list_workflow_metadata() == []
    assert await backend.list_workflow_versions("none") == []
    assert await backend.get_workflow_version("none", "sha256:0") is None
    assert await backend.get_current_workflow_version("none") is None
    with pytest.raises(WorkflowNotFound):
        await backend.calculate_dependents("none", "a")
    for call in (backend.get_workflow_metadata, backend.get_workflow_steps, backend.list_workflow_versions):
        with pytest.raises(InvalidArgument):
            await call("not a slug")


async def test_dependents_are_transitive(backend: RedisBackend) -> None:
    await backend.register_workflow(registration())
    assert await backend.calculate_dependents("shop", "a") == ["b", "c", "d"]
    assert await backend.calculate_dependents("shop", "b") == ["d"]
    assert await backend.calculate_dependents("shop", "d") == []
    with pytest.raises(StepNotFound):
        await backend.calculate_dependents("shop", "gone")


async def test_a_known_version_registered_again_is_a_rollback(backend: RedisBackend) -> None:
    old, new = plan("1"), plan("2")
    await backend.register_plan(old)
    before = await backend.get_workflow_version("shop", old.version)
    await backend.register_plan(new)
    await backend.register_plan(old)
    assert (await backend.registered_plan("shop")).version == old.version
    assert await backend.get_workflow_version("shop", old.version) == before
    current = await backend.get_current_workflow_version("shop")
    assert current is not None
    assert current.version_id == new.version, "the latest, whichever submits use"


async def test_versions_registered_at_once_have_numbers_of_their_own(backend: RedisBackend) -> None:
    plans = [plan(str(number)) for number in range(20)]
    await asyncio.gather(*(backend.register_plan(one) for one in plans))
    found = await backend.list_workflow_versions("shop")
    assert [version.version_number for version in found] == list(range(20, 0, -1))
    assert {version.version_id for version in found} == {one.version for one in plans}
    assert [version.version_number for version in await backend.list_workflow_versions("shop", 2)] == [20, 19]
    for limit in (-1, True, "1"):
        with pytest.raises(InvalidArgument):
            await backend.list_workflow_versions("shop", limit)  # type: ignore[arg-type]


async def test_a_known_version_is_not_created_again(backend: RedisBackend) -> None:
    first = WorkflowVersion(
        workflow_slug="shop", version_id="v-1", version_number=7, created_at=1000, step_manifest=("a",), total_steps=1
    )
    await backend.create_workflow_version(first)
    await backend.create_workflow_version(first.model_copy(update={"created_at": 2000}))
    await backend.create_workflow_version(first.model_copy(update={"version_id": "v-0", "created_at": 500}))
    found = await backend.list_workflow_versions("shop")
    assert [(v.version_id, v.version_number, v.created_at) for v in found] == [("v-1", 2, 1000), ("v-0", 1, 500)]
    with pytest.raises(InvalidArgument):
        await backend.create_workflow_version(first.model_copy(update={"version_id": ""}))


async def test_a_known_plan_is_registered_without_a_write(backend: RedisBackend) -> None:
    await backend.register_plan(plan("1"), location="/here/flow.py")
    before = (await backend.client.info("commandstats")).get("cmdstat_hset", {}).get("calls", 0)
    await backend.register_plan(plan("1"), location="/elsewhere/flow.py")
    await backend.register_plan(plan("1"))
    assert (await backend.client.info("commandstats")).get("cmdstat_hset", {}).get("calls", 0) == before
    found = await backend.get_workflow_metadata("shop")
    assert found is not None
    assert found.location == "/here/flow.py"


async def test_a_known_workflow_is_registered_while_memory_is_full(tmp_path: Path) -> None:
    server = TestServer(folder=tmp_path)
    backend = RedisBackend(Settings(url=server.url, namespace="full"))
    try:
        await backend.initialize()
        await backend.register_plan(plan("1"), location=__file__)
        await backend.client.config_set("maxmemory", 1)
        await backend.register_plan(plan("1"), location=__file__)
        with pytest.raises(ServerUnavailable, match="out of memory"):
            await backend.register_plan(plan("2"))
    finally:
        await backend.close()
        server.close()


async def test_a_registry_on_a_cluster(cluster_server: TestServer, settings: Settings) -> None:
    backend = RedisBackend(settings.model_copy(update={"url": cluster_server.url}))
    await backend.initialize()
    try:
        await backend.register_workflow(registration())
        found = await backend.get_current_workflow_version("shop")
        assert found is not None
        assert found.version_number == 1
    finally:
        await backend.close()


async def test_a_worker_records_version_and_location(client: Client) -> None:
    flow = Workflow("placed")

    @flow.step
    async def only() -> None: ...

    assert flow.location == str(Path(__file__).resolve())
    async with Worker(client, [flow]):
        found = await client.backend.get_workflow_metadata("placed")
        version = await client.backend.get_workflow_version("placed", flow.plan.version)
    assert found is not None
    assert found.location == flow.location
    assert version is not None
    assert version.step_manifest == ("only",)


def test_a_workflow_without_a_file_has_no_location() -> None:
    assert Workflow("empty").location is None


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *own, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


async def test_the_commit_of_a_version(backend: RedisBackend, tmp_path: Path) -> None:
    clean, dirty = tmp_path / "clean", tmp_path / "dirty"
    for folder in (clean, dirty):
        folder.mkdir()
        git(folder, "init", "-b", "main")
        (folder / "flow.py").write_text("x = 1\n")
        git(folder, "add", ".")
        git(folder, "commit", "-m", "one")
    (dirty / "flow.py").write_text("x = 2\n")
    git(dirty, "checkout", "--detach")
    for folder, branch, changed in ((clean, "main", False), (dirty, "HEAD", True)):
        one = plan(branch)
        await backend.register_plan(one, location=str(folder / "flow.py"))
        version = await backend.get_workflow_version("shop", one.version)
        assert version is not None
        assert version.git is not None
        expected = (git(folder, "rev-parse", "HEAD"), branch, changed)
        assert (version.git.commit, version.git.branch, version.git.dirty) == expected


async def test_no_repository_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flow.py").touch()
    assert await git_info(str(tmp_path / "flow.py")) is None
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    monkeypatch.setenv("PATH", "")
    assert await git_info(None) is None
