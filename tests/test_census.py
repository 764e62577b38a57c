"""The example that the demo runs: its counts on a small tree, its report, and the whole of it in-process."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from examples.stdlib_census import (
    GROUPS,
    Census,
    CensusRequest,
    Inventory,
    Package,
    PackageCount,
    balance,
    census,
    count_package,
    find_packages,
    merge_parts,
    render,
    summarize,
)
from redisflow.model.errors import InvalidInput

ALPHA = '''"""A package."""
import os.path
from collections.abc import Iterator
from . import core
import os


class Public:
    """Documented."""

    def method(self) -> None: ...

    def _private(self) -> None: ...


async def wait() -> None:
    """Documented."""
'''


@pytest.fixture
def library(tmp_path: Path) -> Path:
    root = tmp_path / "lib"
    for name, text in {
        "alpha/__init__.py": ALPHA,
        "alpha/core.py": "import os\n",
        "alpha/tests/test_core.py": "import unittest\n",
        "alpha/data.txt": "not Python",
        "beta.py": "x = (\n",
        "latin.py": b"# -*- coding: latin-1 -*-\nname = '\xe9'\n",
        "nul.py": b"x = 1\0\n",
        "site-packages/other.py": "import alpha\n",
        "test/test_alpha.py": "import alpha\n",
        "config-3.11/odd.py": "",
        "__pycache__/beta.py": "",
        "empty/readme.txt": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_packages_of_a_tree(library: Path) -> None:
    packages = find_packages(library)
    assert {package.name: package.files for package in packages} == {
        "alpha": ["alpha/__init__.py", "alpha/core.py"],
        "beta": ["beta.py"],
        "latin": ["latin.py"],
        "nul": ["nul.py"],
    }
    assert packages[0].size == len(ALPHA) + len("import os\n")


def test_counts_of_a_package(library: Path) -> None:
    count, imports = count_package(library, find_packages(library)[0])
    assert count == PackageCount(
        name="alpha",
        modules=2,
        lines=ALPHA.count("\n") + 1,
        functions=3,
        classes=1,
        public=5,  # two modules, Public, method, wait
        documented=3,
    )
    assert imports == {"os": 2, "collections": 1}, "once a module, relative ones left out"


def test_what_does_not_parse_is_counted(library: Path) -> None:
    counts = [count_package(library, package)[0] for package in find_packages(library)]
    assert {count.name: count.unparsed for count in counts} == {"alpha": 0, "beta": 1, "latin": 0, "nul": 1}
    gone, _ = count_package(library, Package(name="gone", files=["gone.py"], size=1))
    assert gone == PackageCount(name="gone", modules=1, unparsed=1)


def test_groups_are_balanced() -> None:
    packages = [Package(name=f"p{size}", files=[], size=size) for size in range(1, 101)]
    groups = balance(packages, GROUPS)
    sizes = [sum(package.size for package in group) for group in groups]
    assert max(sizes) - min(sizes) <= 10
    assert sorted(package.size for group in groups for package in group) == list(range(1, 101))
    assert balance(reversed(packages), GROUPS) == groups


def test_fewer_packages_than_groups() -> None:
    assert balance([Package(name="only", files=[], size=1)], 3)[1:] == [[], []]


def test_parts_are_merged() -> None:
    parts = [
        Census(packages=[PackageCount(name="b", lines=2)], imports={"os": 1, "re": 1}),
        Census(packages=[PackageCount(name="a", lines=1)], imports={"os": 4}),
        Census(packages=[], imports={}),
    ]
    merged = merge_parts(parts)
    assert [package.name for package in merged.packages] == ["a", "b"]
    assert merged.imports == {"os": 5, "re": 1}


def test_report_is_well_formed(library: Path) -> None:
    counted = [count_package(library, package) for package in find_packages(library)]
    merged = merge_parts(Census(packages=[count], imports=imports) for count, imports in counted)
    summary = summarize(merged, library / "report.md")
    text = render(merged, summary)
    tables = assert_markdown(text)
    assert ("Unparsed", "2") in tables["Totals"]
    assert ("Docstring coverage", f"{3 / 6:.1%}") in tables["Totals"]
    assert tables["Packages by lines"][0][0] == "alpha"
    assert tables["Most imported modules"][0] == ("os", "2")
    assert text == render(merged, summary)


def test_whole_census_runs_in_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.md"
    summary = asyncio.run(census.run_inline(CensusRequest(output_path=str(path))))
    assert summary.path == str(path)
    assert summary.packages > 100
    assert summary.lines > 100_000
    assert 0 < summary.docstring_coverage < 1
    tables = assert_markdown(path.read_text(encoding="utf-8"))
    assert ("Modules", f"{summary.modules:,}") in tables["Totals"]
    assert len(tables["Packages by lines"]) == 15
    assert {"sys", "os"} <= {row[0] for row in tables["Most imported modules"]}
    assert [entry.name for entry in path.parent.iterdir()] == ["report.md"]


async def test_pace_stretches_the_parse_steps(library: Path, tmp_path: Path) -> None:
    packages = find_packages(library)
    inventory = Inventory(root=str(library), groups=[packages, *([] for _ in range(GROUPS - 1))])
    request = CensusRequest(output_path=str(tmp_path / "report.md"), pace=0.2)
    before = time.monotonic()
    summary = await census.run_inline(request, stubs={"list_packages": inventory})
    assert time.monotonic() - before >= 0.2
    assert summary.packages == len(packages)


async def test_negative_pace_is_refused() -> None:
    with pytest.raises(InvalidInput, match="pace"):
        await census.run_inline({"pace": -1.0})  # type: ignore[arg-type]


def assert_markdown(text: str) -> dict[str, list[tuple[str, ...]]]:
    """Check headings and tables line by line; returns the rows of the tables by heading."""
    assert text.startswith("# ")
    tables: dict[str, list[tuple[str, ...]]] = {}
    for title, body in re.findall(r"^## (.+)\n\n((?:\|.*\n?)+)", text, re.MULTILINE):
        header, rule, *rows = ([*map(str.strip, line.split("|")[1:-1])] for line in body.splitlines())
        assert all(re.fullmatch(r":?-{3,}:?", cell) for cell in rule)
        assert {len(row) for row in [header, rule, *rows]} == {len(header)}
        tables[title] = [tuple(row) for row in rows]
    assert len(tables) == text.count("\n## ") == 6
    return tables
