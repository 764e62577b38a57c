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
MAX_NOT_RUN = 12


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


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```python\nprint(2)  # -> 3\n```", "'3' is not printed"),
        ("```python\nx = 1\n```\n\n```python\nassert x == 2\n```", None),
        ("```bash\nfalse\n```", "exit code 1"),
        ("```bash\necho one\n```\n\n```text\ntwo\n```", "'two' is not printed"),
        ('```python title="broken.py"\nraise ImportError("loaded")\n```\n\n```python\nimport broken\n```', "loaded"),
        ("<!-- setup\nassert False\n-->", None),
    ],
)
async def test_a_wrong_block_fails_with_its_place(
    tmp_path: Path, text: str, error: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    with pytest.raises((AssertionError, ImportError), match=error) as caught:
        await PageRun(page, tmp_path, dict(os.environ)).run()
    assert any("page.md:" in note for note in caught.value.__notes__)


async def test_a_marked_block_is_left_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it would fail -->\n```python\nassert False\n```\n", encoding="utf-8")
    (block,) = blocks_in(page)
    assert block.not_run == "it would fail"
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
