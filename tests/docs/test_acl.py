"""The ACL rule of the production checklist is enough to run workflows, and to look at them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from redisflow import Client, Reclaimer, Worker, Workflow
from redisflow.model.errors import ServerUnavailable
from tests.conftest import TestServer
from tests.docs.blocks import ROOT, blocks_in

PAGE = ROOT / "docs" / "guides" / "production.md"


def acl_rule() -> list[str]:
    (block,) = [block for block in blocks_in(PAGE) if block.title == "users.acl"]
    keyword, user, *rule = block.text.split()
    assert (keyword, user) == ("user", "redisflow")
    return rule


async def test_the_rule_suffices() -> None:
    flow = Workflow("flow", input=int)

    @flow.step(export=True)
    async def twice(input: int) -> int:
        return 2 * input

    server = TestServer(tcp=True)
    try:
        admin = server.client()
        admin.execute_command("ACL", "SETUSER", "redisflow", *acl_rule())
        url = f"redis://redisflow:secret@127.0.0.1:{server.port}/0"
        async with Client(url) as rf, Worker(rf, [flow]):
            await Reclaimer(rf).run_once()
            run = await rf.submit(flow, 2, key="once", tags=["red"])
            assert await run.result(timeout="20s") == 4
            again = await rf.rerun(run.id, "twice")
            assert await again.result(timeout="20s") == 4
            for command in ("doctor", "verify", "stats"):
                done = subprocess.run(
                    [sys.executable, "-m", "redisflow", command], env={**os.environ, "REDISFLOW_URL": url},
                    capture_output=True, text=True, timeout=60, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout + done.stderr
        assert admin.execute_command("ACL", "LOG") == []
        with pytest.raises(ServerUnavailable, match="ACL"):
            await Client(url, namespace="other").open(deadline="1s")
        admin.close()
    finally:
        server.close()
