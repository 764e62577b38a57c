"""The public definitions as a type checker sees them: what it takes, what it infers, what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "typing"
ERROR = re.compile(r"^\S+?:(\d+): error: .*\[([a-z-]+)\]$")
MARK = re.compile(r"# error: (.*)$")


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[int, str]]]:
    """(line, code) of each error that mypy reports, by file; in one run, since it is slow to start."""
    cache = tmp_path_factory.mktemp("mypy")
    options = ["--strict", "--no-error-summary", "--no-pretty", "--cache-dir", str(cache)]
    files = [str(CASES / "accept.py"), str(CASES / "refuse.py")]
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *options, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, list[tuple[int, str]]] = {"accept.py": [], "refuse.py": []}
    for line in done.stdout.splitlines():
        if match := ERROR.match(line):
            found[Path(line.split(":", 1)[0]).name].append((int(match[1]), match[2]))
        else:
            assert ": note: " in line, line
    return found


def marked(file: str) -> list[tuple[int, str]]:
    lines = enumerate((CASES / file).read_text().splitlines(), start=1)
    return [(n, code) for n, line in lines if (mark := MARK.search(line)) for code in mark[1].split()]


def test_it_accepts(reported: dict[str, list[tuple[int, str]]]) -> None:
    assert reported["accept.py"] == []


def test_it_refuses_exactly_what_is_marked(reported: dict[str, list[tuple[int, str]]]) -> None:
    assert sorted(reported["refuse.py"]) == sorted(marked("refuse.py"))
    assert len(marked("refuse.py")) > 20
