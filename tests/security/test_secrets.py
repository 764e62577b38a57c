"""A password reaches no log, no error, no output and no repr, and files with payloads are their owner's alone."""

from __future__ import annotations

import asyncio
import logging
import stat
from pathlib import Path

import pytest

from redisflow import Client, RedisflowError, Settings, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.model.errors import InvalidArgument
from tests.cli.conftest import Call, env, rf, unloaded  # noqa: F401 - fixtures
from tests.conftest import TestServer

SECRET = "Tr0ub4dor-x"


@pytest.fixture
def locked(settings: Settings) -> Settings:
    server = TestServer(tcp=True)
    with server.client() as control:
        control.config_set("requirepass", SECRET)
    url = f"redis://:{SECRET}@127.0.0.1:{server.port}/0"
    yield settings.model_copy(update={"url": url, "retry_deadline": 300_000})  # type: ignore[misc]
    server.close()


async def test_nothing_tells_the_password(locked: Settings, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    flow = Workflow("quiet", output=int)

    @flow.step(export=True)
    async def one() -> int:
        return 1

    backend = RedisBackend(locked)
    await backend.initialize()
    address = await backend.server.address_of(backend.partitions[0].meta)
    assert address.password == SECRET
    shown = [repr(address), repr(locked), str(locked), repr(locked.model_copy())]
    await backend.close()
    async with Client(settings=locked) as client, Worker(client, [flow]):
        assert await (await client.submit(flow)).result(timeout=10) == 1
    wrong = (locked.url or "").replace(SECRET, "Wr0ng-" + SECRET)
    dead = f"redis://user:{SECRET}@127.0.0.1:1/0?password={SECRET}"
    for url in (wrong, dead, f"nonsense://a:{SECRET}@b", f"redis://h:{SECRET}:x@[::1"):
        with pytest.raises((RedisflowError, ValueError)) as caught:
            await Client(settings=locked.model_copy(update={"url": url})).open()
        shown.append(f"{caught.value} {caught.value!r}")
    shown += [record.getMessage() for record in caplog.records]
    assert [line for line in shown if SECRET in line] == []


@pytest.mark.parametrize("words", [["doctor"], ["runs"], ["doctor", "--json"], ["verify"], ["workflows"]])
async def test_no_command_tells_it(rf: Call, locked: Settings, words: list[str]) -> None:  # noqa: F811
    good = await asyncio.to_thread(rf, *words, "--url", locked.url or "")
    bad = await asyncio.to_thread(rf, *words, "--url", f"redis://:{SECRET}@127.0.0.1:1/0")
    assert good.code in (0, 1)
    assert bad.code == 1
    assert SECRET not in good.out + good.err + bad.out + bad.err


async def test_what_an_isolated_step_hands_over_is_private(settings: Settings, tmp_path: Path) -> None:
    from redisflow.worker.isolate import _make_spool

    backend = RedisBackend(settings.model_copy(update={"home": tmp_path / "home"}))
    for slug, run_id, step_id in (("../../etc", "r", "s"), ("flow", "../r", "s"), ("flow", "r", "../s/..|")):
        with pytest.raises(InvalidArgument):
            backend.get_step_output_path(slug, run_id, step_id, 1, 1)
    paths = [
        backend.get_step_output_path("flow", "..", step, attempt, lease)
        for step in ("..", "a/b", "a.b") for attempt in (1, 2) for lease in (None, 9)
    ]  # fmt: skip
    spool = tmp_path / "home" / "spool"
    assert len({path.name for path in paths}) == len(paths)
    for path in paths:
        assert path.parent == spool
        _make_spool(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(spool.stat().st_mode) == 0o700
    victim = tmp_path / "victim"
    victim.write_text("kept")
    paths[0].unlink()
    paths[0].symlink_to(victim)
    _make_spool(paths[0])
    assert not paths[0].is_symlink()
    assert victim.read_text() == "kept"
