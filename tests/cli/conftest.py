"""The command line as a person calls it: in this process where that is enough, else as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from redisflow.settings import Settings
from tests.conftest import until

ROOT = Path(__file__).parent.parent.parent

FLOW = """
from pydantic import BaseModel
from redisflow import Retry, Skip, Workflow


class Order(BaseModel):
    cents: int
    fail: bool = False


shop = Workflow("shop", input=Order)


@shop.step
async def price(order: Order) -> int:  # on the loop, as the next: so it has ended when that one fails
    return order.cents * 2


@shop.step
async def stock(order: Order) -> int:
    if order.fail:
        raise ValueError("no \\x1b[31mstock")
    return 1


@shop.step(export=True)
def bill(price: int, stock: int) -> str:
    return f"{price} for {stock}"
"""


@dataclass
class Finished:
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that an error is."""
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: "), self.err
        assert "Traceback" not in self.out
        return lines[0]


def environment(**more: str) -> dict[str, str]:
    """The environment of a child: this checkout importable, no settings but the given ones."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("REDISFLOW_")}
    return {**own, "PYTHONPATH": str(ROOT), **more}


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    assert settings.url is not None
    return environment(REDISFLOW_URL=settings.url, REDISFLOW_NAMESPACE=settings.namespace)


Call = Callable[..., Finished]


@pytest.fixture
def rf(env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """`rf("runs", "--json")` in this process, in a folder of its own."""
    from click.testing import CliRunner

    from redisflow.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, stdin: str | None = None, **extra: str) -> Finished:
        for name in [name for name in os.environ if name.startswith("REDISFLOW_")]:
            monkeypatch.delenv(name)
        result = CliRunner().invoke(main, list(arguments), input=stdin, env={**env, **extra})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Finished(result.exit_code, result.stdout, result.stderr)

    return call


def run_process(*arguments: str, cwd: Path, env: dict[str, str], stdin: str = "", timeout: float = 60) -> Finished:
    """`python -m redisflow …` to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "redisflow", *arguments], cwd=cwd, env=env, input=stdin, capture_output=True,
        text=True, timeout=timeout,
    )  # fmt: skip
    return Finished(done.returncode, done.stdout, done.stderr)


class Service:
    """A running `python -m redisflow …` whose output can be waited for."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def text(self) -> str:
        return self._log.read_text()

    def expect(self, text: str, timeout: float = 20) -> None:
        def seen() -> bool:
            assert self.process.poll() is None or text in self.text, self.text
            return text in self.text

        until(seen, timeout)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20) -> int:
        return self.process.wait(timeout)


@contextmanager
def service(*arguments: str, cwd: Path, env: dict[str, str], **options: Any) -> Iterator[Service]:
    """A long-running command, gone at the end."""
    log = cwd / f"{arguments[0]}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "redisflow", *arguments],
            cwd=cwd,
            env=env,
            stdout=file,
            stderr=file,
            **options,
        )
    running = Service(process, log)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    """A file with a small workflow."""
    path = tmp_path / "shop_flow.py"
    path.write_text(FLOW)
    return path


@pytest.fixture
def shop_worker(flow: Path, tmp_path: Path, env: dict[str, str]) -> Iterator[Service]:
    """A worker process that serves the small workflow."""
    with service("worker", str(flow), cwd=tmp_path, env=env) as running:
        running.expect("slots")
        yield running


@pytest.fixture
async def registered(settings: Settings, flow: Path) -> None:
    """The small workflow is known to the namespace, but nobody runs it."""
    from redisflow.cli.load import load_module, workflows_in
    from redisflow.client import Client

    async with Client(settings=settings) as client:
        for found in workflows_in(load_module(str(flow))):
            await client.backend.register_plan(found.plan)


@pytest.fixture(autouse=True)
def unloaded(tmp_path: Path) -> Iterator[None]:
    """Modules and folders that a call in this process has loaded do not reach the next test."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if origin.startswith(str(tmp_path)):
            del sys.modules[name]
