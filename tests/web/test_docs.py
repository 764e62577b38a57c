"""What docs/http-api.md shows works: the client in TypeScript, run by node against a real server and worker."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from redisflow import Client, Workflow
from redisflow.web import WebOptions
from redisflow.web.api.endpoints import ENDPOINTS
from redisflow.web.serve import running
from redisflow.worker import Worker

DOCUMENT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
order = Workflow("order", input=dict)


@order.step(export=True)
async def total(input: dict) -> int:
    return sum(item["cents"] for item in input["items"])


def how_to_run(folder: Path) -> list[str] | None:
    """A command that runs client.mts: node from 22.6 on strips types, an older one needs the compiler."""
    node, tsc = shutil.which("node"), shutil.which("tsc")
    if node is None:
        return None
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = map(int, version.lstrip("v").split(".")[:2])
    if (major, minor) >= (22, 6):
        return [node, "--experimental-strip-types", "--no-warnings", "client.mts"]
    if tsc is None:
        return None
    options = ["--target", "es2022", "--module", "nodenext", "--skipLibCheck", "--noEmitOnError", "false"]
    subprocess.run(
        [tsc, *options, "client.mts"], cwd=folder, capture_output=True, check=False
    )  # it lacks node's types here
    return [node, "client.mjs"]


async def test_the_client_in_typescript_gets_its_result(client: Client, tmp_path: Path) -> None:
    block = re.search(r"```ts\n(.*?)```", DOCUMENT, re.S)
    assert block
    await client.backend.register_plan(order.plan)
    async with Worker(client, [order]), running(client, WebOptions(), "127.0.0.1", 0) as served:
        (tmp_path / "client.mts").write_text(block[1].replace("http://127.0.0.1:8420", served.url))
        command = await asyncio.to_thread(how_to_run, tmp_path)
        if command is None:
            pytest.skip("needs node from 22.6 on, or an older one with tsc, which Debian has as node-typescript")
        done = await asyncio.to_thread(
            subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    assert "status: 'completed'" in done.stdout
    assert "result: 250" in done.stdout


def test_every_endpoint_is_described() -> None:
    for row in ENDPOINTS:
        last = row.path.rpartition("/")[2]
        assert (last if not last.startswith("{") else row.path.replace("run_id", "id")) in DOCUMENT, row.path
