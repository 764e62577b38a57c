"""The pages are complete and hang together: no link, name, setting or command that leads nowhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

import redisflow
from redisflow.cli.root import COMMANDS
from redisflow.settings import Settings
from tests.docs.blocks import ROOT, pages
from tools.cli_page import PAGE as COMMANDS_PAGE
from tools.cli_page import render
from tools.site_check import foreign_fetches

DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?://|mailto:)([^)\s#]*)(#[^)\s]+)?\)")


def _anchors(page: Path) -> set[str]:
    """Ids of the headings, as both the site and GitHub make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", head).strip().lower()) for head in heads}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        place = (page.parent / target).resolve() if target else page
        assert place.exists(), f"{target} does not exist"
        if anchor and place.suffix == ".md":
            assert anchor[1:] in _anchors(place), f"{target} has no heading {anchor}"


def test_the_site_lists_every_page() -> None:
    nav = yaml.safe_load(re.sub(r"!!python/\S+", "", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))["nav"]

    def listed(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry.values() if isinstance(entry, dict) else entry
        return [page for part in inner for page in listed(part)]  # type: ignore[attr-defined]

    assert sorted(listed(nav)) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_committed_commands_are_what_click_says() -> None:
    assert COMMANDS_PAGE.read_text(encoding="utf-8") == render(), "run `make docs` and commit docs/reference/cli.md"


def test_every_command_is_on_the_page() -> None:
    text = render()
    assert [name for name in COMMANDS if text.count(f"## `{name}`\n") != 1] == []


def test_every_public_name_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    documented = {line.split(".")[-1] for line in text.splitlines() if line.startswith("::: ")}
    homes = {name: getattr(redisflow, name).__module__ for name in redisflow.__all__}
    missing = [
        name
        for name, home in homes.items()
        if name not in documented and not (home == "redisflow.model.errors" and f"::: {home}" in text)
    ]
    assert missing == []


def test_the_checklist_has_every_setting() -> None:
    text = (DOCS / "guides" / "production.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `REDISFLOW_(\w+)`", text, re.MULTILINE) == [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="preconnect" href="//fonts.example">', ["//fonts.example"]),
        ("<style>@import url(https://fonts.example/a.css)</style>", ["https://fonts.example/a.css"]),
        ('<a href="https://example.org">read</a><link rel="canonical" href="https://me.example"><img src="a.png">', []),
    ],
)
def test_the_site_check_sees_what_a_browser_fetches(tmp_path: Path, text: str, found: list[str]) -> None:
    page = tmp_path / "index.html"
    page.write_text(text, encoding="utf-8")
    assert foreign_fetches(page) == found


def test_a_site_without_pages_is_no_success(tmp_path: Path) -> None:
    done = subprocess.run(
        ["python3", "-m", "tools.site_check", str(tmp_path)], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 1
