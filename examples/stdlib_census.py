"""A census of the Python standard library: real input, real work, one report.

    list_packages -> parse_0 ... parse_5 -> merge -> report

The installed library is listed and cut into six groups of about the same size. Six steps read the syntax tree
of every module of their group, side by side; their counts are merged and written down in Markdown. On a
worker: `redisflow dev examples/stdlib_census.py`; without any server: `python examples/stdlib_census.py`.

Every step may run again at any time: it only reads, or, in the case of the report, replaces the file whole.
"""

from __future__ import annotations

import ast
import asyncio
import os
import platform
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from redisflow import Retry, Skip, StepContext, Workflow

GROUPS = 6
TOP = 15
NOT_LIBRARY = frozenset({"__pycache__", "dist-packages", "idle_test", "site-packages", "test", "tests"})

# Python counts the depth of syntax trees in one place for all threads, and some versions then fail by chance
_PARSER = threading.Lock()


class CensusRequest(BaseModel):
    """What to do: where the report goes, and how slowly to go about it."""

    output_path: str = "census-report.md"
    pace: float = Field(0.0, ge=0, description="Seconds that each parse step takes at least")


class Package(BaseModel):
    """A top-level package or module; its files are relative to the library's folder."""

    name: str
    files: list[str]
    size: int


class Inventory(BaseModel):
    """The library, cut into groups that take about the same time to parse."""

    root: str
    groups: list[list[Package]]


class PackageCount(BaseModel):
    """What is in a package; `public` and `documented` count what should have and what has a docstring."""

    name: str
    modules: int = 0
    unparsed: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0
    public: int = 0
    documented: int = 0


class Census(BaseModel):
    """Counts of packages, and by how many modules each top-level module is imported."""

    packages: list[PackageCount]
    imports: dict[str, int]


class CensusReport(BaseModel):
    """Where the report is, and its headline numbers."""

    path: str
    python: str
    packages: int
    modules: int
    lines: int
    functions: int
    classes: int
    docstring_coverage: float
    unparsed: int


census = Workflow("stdlib-census", input=CensusRequest, output=CensusReport)


@census.step
def list_packages() -> Inventory:
    """Find the library of the interpreter that runs this worker."""
    root = Path(sysconfig.get_path("stdlib"))
    return Inventory(root=str(root), groups=balance(find_packages(root), GROUPS))


def declare_parse(number: int) -> None:
    """Declare the step that parses one group."""

    @census.step(name=f"parse_{number}")
    def parse(request: CensusRequest, list_packages: Inventory, ctx: StepContext) -> Census:
        group = list_packages.groups[number]
        counts, imports = [], Counter[str]()
        for package in group:
            if ctx.cancelled:  # nobody can stop a thread from outside
                raise Skip("the run was cancelled")
            count, imported = count_package(Path(list_packages.root), package)
            counts.append(count)
            imports.update(imported)
            # so that a demo has the time to show progress, and to kill a worker in the middle of a step
            time.sleep(request.pace / len(group))
        ctx.logger.info("parsed %d lines of %d packages", sum(count.lines for count in counts), len(counts))
        return Census(packages=counts, imports=imports)


for _number in range(GROUPS):
    declare_parse(_number)


@census.step
def merge(
    parse_0: Census, parse_1: Census, parse_2: Census, parse_3: Census, parse_4: Census, parse_5: Census
) -> Census:
    """Put the six parts together."""
    return merge_parts([parse_0, parse_1, parse_2, parse_3, parse_4, parse_5])


@census.step(export=True, retry=Retry(attempts=3, delay="1s"))
def report(request: CensusRequest, merge: Census) -> CensusReport:
    """Write the report; a reader never sees half of one."""
    path = Path(request.output_path).resolve()
    summary = summarize(merge, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(render(merge, summary), encoding="utf-8")
    draft.replace(path)
    return summary


def find_packages(root: Path) -> list[Package]:
    """List the top-level packages and modules of a folder, without tests and what is installed beside."""
    packages = []
    for entry in sorted(root.iterdir()):
        name = entry.stem if entry.suffix == ".py" else entry.name
        if name in NOT_LIBRARY or not name.isidentifier():
            continue
        if files := list(source_files(entry)):
            size = sum(file.stat().st_size for file in files)
            relative = [file.relative_to(root).as_posix() for file in files]
            packages.append(Package(name=name, files=relative, size=size))
    return packages


def source_files(entry: Path) -> Iterator[Path]:
    """List the modules of a package, or the one module that `entry` is, in a fixed order."""
    if entry.is_file():
        if entry.suffix == ".py":
            yield entry
        return
    for folder, subfolders, names in os.walk(entry):
        subfolders[:] = sorted(set(subfolders) - NOT_LIBRARY)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def balance(packages: Iterable[Package], count: int) -> list[list[Package]]:
    """Cut packages into groups of about the same size: the largest first, each to the smallest group."""
    groups: list[list[Package]] = [[] for _ in range(count)]
    sizes = [0] * count
    for package in sorted(packages, key=lambda package: (-package.size, package.name)):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(package)
        sizes[smallest] += package.size
    return groups


def count_package(root: Path, package: Package) -> tuple[PackageCount, Counter[str]]:
    """Count what is in the modules of a package, and what they import."""
    count, imports = PackageCount(name=package.name), Counter[str]()
    for file in package.files:
        count.modules += 1
        try:
            source = (root / file).read_bytes()
            with _PARSER:
                tree = ast.parse(source)
        except (OSError, SyntaxError, ValueError, RecursionError):
            count.unparsed += 1  # broken on purpose, or for another version of Python
            continue
        count.lines += len(source.splitlines())
        imports.update(count_tree(tree, count))
    return count, imports


def count_tree(tree: ast.Module, count: PackageCount) -> set[str]:
    """Add what is in a module to the count of its package; returns the top-level modules that it imports."""
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                imported.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            count.classes += isinstance(node, ast.ClassDef)
            count.functions += isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if not getattr(node, "name", "").startswith("_"):
                count.public += 1
                count.documented += ast.get_docstring(node, clean=False) is not None
    return imported


def merge_parts(parts: Iterable[Census]) -> Census:
    """Put the parts of a census together, packages by name."""
    packages: list[PackageCount] = []
    imports = Counter[str]()
    for part in parts:
        packages += part.packages
        imports.update(part.imports)
    return Census(packages=sorted(packages, key=lambda package: package.name), imports=imports)


def summarize(counted: Census, path: Path) -> CensusReport:
    """Compute the headline numbers."""
    packages = counted.packages
    return CensusReport(
        path=str(path),
        python=platform.python_version(),
        packages=len(packages),
        modules=sum(package.modules for package in packages),
        lines=sum(package.lines for package in packages),
        functions=sum(package.functions for package in packages),
        classes=sum(package.classes for package in packages),
        docstring_coverage=coverage(packages),
        unparsed=sum(package.unparsed for package in packages),
    )


def coverage(packages: Iterable[PackageCount]) -> float:
    """Compute the part of public modules, classes and functions that have a docstring, 0 to 1."""
    documented = public = 0
    for package in packages:
        documented += package.documented
        public += package.public
    return round(documented / public, 4) if public else 0.0


def render(counted: Census, summary: CensusReport) -> str:
    """Write the report as Markdown."""
    names = ("packages", "modules", "lines", "functions", "classes", "unparsed")
    totals = [(name.capitalize(), f"{getattr(summary, name):,}") for name in names]
    totals.append(("Docstring coverage", f"{summary.docstring_coverage:.1%}"))
    imports = sorted(counted.imports.items(), key=lambda item: (-item[1], item[0]))[:TOP]
    return "\n".join(
        [
            f"# The standard library of Python {summary.python}",
            section("Totals", ("What", "How many"), totals),
            *(ranking(counted.packages, field) for field in ("lines", "functions", "classes")),
            documentation(counted.packages),
            section("Most imported modules", ("Module", "Imported by"), [(n, f"{c:,}") for n, c in imports]),
        ]
    )


def ranking(packages: Iterable[PackageCount], field: str) -> str:
    """Write the section of the packages with the most of something."""
    top = sorted(packages, key=lambda package: (-getattr(package, field), package.name))[:TOP]
    rows = [(p.name, f"{getattr(p, field):,}", f"{p.modules:,}") for p in top]
    return section(f"Packages by {field}", ("Package", field.capitalize(), "Modules"), rows)


def documentation(packages: Iterable[PackageCount]) -> str:
    """Write the section of the best documented packages, leaving out those too small to tell."""
    large = [package for package in packages if package.public >= 20]
    top = sorted(large, key=lambda package: (-coverage([package]), package.name))[:TOP]
    rows = [(p.name, f"{coverage([p]):.1%}", f"{p.documented:,} of {p.public:,}") for p in top]
    return section("Packages by docstring coverage", ("Package", "Coverage", "Documented"), rows)


def section(title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a heading and a table whose columns after the first are numbers."""
    rule = [":---", *("---:" for _ in header[1:])]
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]
    return "\n".join([f"\n## {title}\n", *lines])


def main() -> None:
    """Run the census in this process and say where the report is."""
    print(asyncio.run(census.run_inline(CensusRequest())).path)


if __name__ == "__main__":
    main()
