"""What users install: the wheel holds the scripts and the examples, and runs without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from redisflow.backend.scripts import parse_scripts

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., str]


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Output of a command that must succeed; of our variables it sees only the given ones."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REDISFLOW_", "PYTHON", "PYTEST", "PIP_"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        text=True,
        capture_output=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheel is built from, so that nothing is written into the checkout."""
    source = tmp_path_factory.mktemp("source") / "redisflow"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("redisflow", "lua", "examples"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet", "--disable-pip-version-check")
    call(sys.executable, "-m", "pip", "install", *options, "--target", target, wheel, cwd=target)
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Run:
    """Runs code with the installed wheel, away from the checkout, with this environment's dependencies."""
    site = sysconfig.get_paths()["purelib"]

    def run(*arguments: str) -> str:
        # -S keeps the editable install of the checkout, a .pth file, out of the way
        path = os.pathsep.join([str(installed), site])
        return call(sys.executable, "-S", *arguments, cwd=tmp_path, PYTHONPATH=path, PYTHONSAFEPATH="1")

    return run


def test_the_wheel_holds_scripts_and_examples(wheel: Path, source: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, pattern in (("lua", "*.lua"), ("examples", "*")):
        files = [
            path.relative_to(source)
            for path in (source / folder).rglob(pattern)
            if path.is_file() and path.suffix != ".pyc"
        ]
        assert files
        assert {f"redisflow/{path.as_posix()}" for path in files} <= names
    kinds = ("*.py", "*.html", "*.css", "*.js", "*.svg")
    modules = {path.relative_to(source).as_posix() for kind in kinds for path in (source / "redisflow").rglob(kind)}
    assert modules <= names
    assert "redisflow/web/templates/base.html" in names


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"redisflow"}
    assert not [name for name in names if name.endswith((".pyc", ".sock", ".rdb", ".aof"))]
    assert len(names) == len(set(names))


def test_every_script_loads_from_the_package(python: Run, installed: Path, source: Path) -> None:
    code = (
        "import redisflow\n"
        "from redisflow.backend.scripts import find_lua, load_scripts\n"
        "print(redisflow.__file__)\n"
        "print(find_lua())\n"
        "print(*sorted(load_scripts()))\n"
    )
    package, folder, scripts = python("-c", code).splitlines()
    assert Path(package).resolve() == (installed / "redisflow" / "__init__.py").resolve()
    assert Path(folder).resolve() == (installed / "redisflow" / "lua").resolve()
    assert scripts.split() == sorted(path.stem for path in (source / "lua").glob("*.lua"))


def test_scripts_of_the_package_are_those_of_the_checkout(python: Run, source: Path) -> None:
    code = (
        "from redisflow.backend.scripts import load_scripts\n"
        "for script in load_scripts().values(): print(script.name, script.function)\n"
    )
    found = dict(line.split() for line in python("-c", code).splitlines())
    assert found == {name: script.function for name, script in parse_scripts(source / "lua", sorted(found)).items()}


def test_the_command_line_runs(python: Run) -> None:
    assert "Usage" in python("-m", "redisflow", "--help")


def test_public_names_are_there(python: Run) -> None:
    code = "import redisflow, redisflow.sync\nprint(all(hasattr(redisflow, name) for name in redisflow.__all__))\n"
    assert python("-c", code).strip() == "True"
