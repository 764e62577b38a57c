"""Every code block of README and docs/ works as it stands there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from redisflow.settings import Settings
from tests.docs.blocks import ROOT, Block, PageRun, blocks_in, pages

ELSEWHERE = {
    "docs/backend.md": "its examples are functions that test_backend_page.py runs",
    "docs/performance.md": "its commands take an hour; the tests of bench run the suites with small counts",
}
MAX_NOT_RUN = 20


def _runnable(page: Path) -> list[Block]:
    return [block for block in blocks_in(page) if block.language in ("python", "bash") and block.not_run is None]


PAGES = [page for page in pages() if str(page.relative_to(ROOT)) not in ELSEWHERE and _runnable(page)]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_the_blocks_of_a_page_work(
    page: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.url is not None
    monkeypatch.setenv("REDISFLOW_URL", settings.url)
    monkeypatch.setenv("REDISFLOW_NAMESPACE", settings.namespace)
    monkeypatch.setenv("REDISFLOW_DRAIN_TIMEOUT", "1s")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    await PageRun(page, tmp_path, dict(os.environ)).run()


def test_a_block_that_is_not_run_says_why() -> None:
    left_out = [block.not_run for page in pages() for block in blocks_in(page) if block.not_run is not None]
    assert len(left_out) <= MAX_NOT_RUN
    assert [why for why in left_out if len(why) < 10] == []


def test_commands_stand_in_blocks_that_are_run() -> None:
    loose = [
        f"{page.relative_to(ROOT)}: {line.strip()}"
        for page in pages()
        if str(page.relative_to(ROOT)) not in ELSEWHERE
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith(("    redisflow ", "    pip ", "    python ", "    make "))
    ]
    assert loose == [], "put commands into ```bash blocks, so that the tests run them"
