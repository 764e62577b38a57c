"""The ACL of docs/deployment.md is enough for everything, and its key patterns keep other keys out of reach."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_sync

from redisflow import Client, Reclaimer, Settings, Worker
from redisflow.backend.scripts import load_scripts
from tests.cli.conftest import Call
from tests.clusters import TestCluster
from tests.conftest import TestServer, assert_consistent
from tests.flows_worker import brisk

ROOT = Path(__file__).parents[2]
RULES = re.search(r"ACL SETUSER redisflow (.*?)```", (ROOT / "docs" / "deployment.md").read_text(), re.DOTALL)


def rules(namespace: str) -> list[str]:
    """The rules as documented, for a namespace."""
    assert RULES is not None
    return [word.replace("{redisflow", f"{{{namespace}") for word in RULES[1].split()]


@pytest.fixture(scope="module")
def own_server() -> Iterator[TestServer]:
    running = TestServer(tcp=True)
    yield running
    running.close()


@pytest.fixture(params=["one server", "Cluster"])
def limited(request: pytest.FixtureRequest, own_server: TestServer, three_nodes: TestCluster) -> Iterator[Settings]:
    """Settings of a fresh namespace, as a user with the documented rules; at the end nothing must have been refused."""
    name = f"u{uuid.uuid4().hex[:10]}"
    nodes = three_nodes.nodes if request.param == "Cluster" else [own_server]
    controls = [node.client() for node in nodes]
    for control in controls:
        control.execute_command("ACL SETUSER", name, *rules(name))
        control.execute_command("ACL LOG", "RESET")
    yield Settings(url=nodes[0].url.replace("://", f"://{name}:password@"), namespace=name, retry_deadline="5s")
    refused = [str(entry) for control in controls for entry in control.acl_log() if name in str(entry)]
    for control in controls:
        control.execute_command("ACL DELUSER", name)
        control.close()
    assert [entry for entry in refused if "{another:0}" not in entry] == []


async def test_library_and_command_line_work_as_that_user(limited: Settings, rf: Call) -> None:
    async with Client(settings=limited) as client:
        sidecar = Reclaimer(client)
        async with Worker(client, [brisk]):
            runs = await client.submit_many(brisk, range(20))
            assert [await run.result(timeout=10) for run in runs] == [2 * n + 1 for n in range(20)]
            keyed = await client.submit(brisk, 1, key="k", tags=["eu"])
            await keyed.result(timeout=10)
            again = await client.rerun(keyed.id, "increment")
            await again.result(timeout=10)
            await sidecar.run_once()
            assert [event.type async for event in keyed.events()][-1] == "WorkflowCompleted"
        later = await client.submit(brisk, 1, delay="1h")
        assert (await later.cancel()).cancelled
        assert (await client.runs(tags=["eu"], status=["completed"]))[1] == 2
        await client.backend.get_analytics_summary()
        await client.backend.get_errors_list()
        assert await client.backend.delete_run(again.id)
        await assert_consistent(client.backend)
        for words in (
            ["runs", "--json"], ["show", keyed.id], ["events", keyed.id], ["logs", keyed.id], ["workflows"], ["workers"],
            ["queues"], ["stats"], ["errors"], ["versions", "brisk"], ["export", keyed.id], ["verify"], ["doctor"],
        ):  # fmt: skip
            done = await asyncio.to_thread(
                rf, *words, REDISFLOW_URL=limited.url or "", REDISFLOW_NAMESPACE=limited.namespace
            )
            assert done.code == 0 or words == ["doctor"], (words, done.err)  # which finds no service at work


async def test_keys_of_others_are_out_of_reach(limited: Settings) -> None:
    control = redis_sync.Redis.from_url(limited.url or "")
    with pytest.raises(redis_sync.exceptions.NoPermissionError):
        control.get("{another:0}:meta")
    control.close()


def test_every_command_of_the_scripts_is_allowed() -> None:
    allowed = set(rules("redisflow"))
    text = load_scripts()["turn"].library.text
    for name, more in re.findall(r"(?:call\(|write\((?:\w+, )?|\{ )'([A-Z]{3,})'(?:, '([A-Z]{3,})')?", text):
        assert {f"+{name.lower()}", f"+{name.lower()}|{more.lower()}"} & allowed, name
