"""The code blocks of the documentation: how they are found, and how a page of them is run.

A page is run from top to bottom in a folder of its own, against a namespace of its own on a real server:

- A `python` block is executed. The blocks of a page share their names; `await` may stand at the top level.
- A block with `title="flow.py"` is that file's text; a second one with the same title is appended to it.
- A `bash` block is run by bash, while workers of the page go on. A line that starts a service (`redisflow dev`, `worker`,
  `reclaimer`, `ui`) is started beside the page and ended with it. A dashboard takes a free port, for which 127.0.0.1:8420
  stands. The word RUN stands for the id of the newest run.
- `print(x)  # -> 3` is held to its comment, and a `text` block after a `bash` block to its lines, where `…` matches anything.
- `<!-- setup` begins Python that a reader does not see. `<!-- not run: why -->` above a block leaves it out.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redisflow import Client

ROOT: Final = Path(__file__).parents[2]
_BLOCK: Final = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n\n?)?"
    r"(?:(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<text>.*?)\n? *```$"
    r"|<!-- setup\n(?P<setup>.*?)\n-->$)",
    re.MULTILINE | re.DOTALL,
)
_WORKER: Final = re.compile(r"worker \S+ serves")
_VARIABLE: Final = re.compile(r"[A-Z_]+=\S+")
_DASHBOARD: Final = re.compile(r"http://(127\.0\.0\.1:\d+)")
_READY: Final = {
    "dev": _WORKER,
    "worker": _WORKER,
    "reclaimer": re.compile(r"reclaimer \S+: stale after"),
    "ui": _DASHBOARD,
}
"""What the log of a service says when it works."""
_PROMISED: Final = re.compile(r"^\s*print\(.*# -> (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    title: str | None
    text: str
    not_run: str | None


def blocks_in(page: Path) -> Iterator[Block]:
    """All blocks of a page, in their order."""
    source = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(source):
        kind = "text" if found["setup"] is None else "setup"
        line = source.count("\n", 0, found.start(kind)) + 1
        if found["setup"] is not None:
            yield Block(line, "python", None, found["setup"], None)
            continue
        indent = len(found["indent"])
        text = "\n".join(row[indent:] for row in found["text"].split("\n"))
        yield Block(line, found["language"], found["title"], text, found["why"])


def pages() -> list[Path]:
    """Every page with code: the README and all of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass
class PageRun:
    """A page that is being run.

    Attributes:
        page: it.
        folder: where its files go.
        environment: of the commands.
    """

    page: Path
    folder: Path
    environment: dict[str, str]
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__docs__"})
    services: list[subprocess.Popen[bytes]] = field(default_factory=list)
    dashboard: str = "127.0.0.1:8420"
    reloading: list[Path] = field(default_factory=list)
    printed: str = ""

    async def run(self) -> None:
        """Run every block, and end what they started."""
        try:
            for block in blocks_in(self.page):
                if block.not_run is None:
                    await self._run(block)
        finally:
            self._end_services()
            self._forget_modules()

    async def _run(self, block: Block) -> None:
        try:
            if block.title is not None:
                self._write(block)
            elif block.language == "python":
                await self._python(block)
            elif block.language == "bash":
                await self._bash(block.text)
            elif block.language == "text" and self.printed:
                self._compare(block.text)
        except Exception as error:
            error.add_note(f"in the block at {os.path.relpath(self.page, ROOT)}:{block.line}")
            raise

    def _write(self, block: Block) -> None:
        assert block.title is not None
        path = self.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        reloading = {log: len(_WORKER.findall(_text(log))) for log in self.reloading} if path.exists() else {}
        with path.open("a", encoding="utf-8") as file:
            file.write(block.text + "\n\n\n")
        sys.modules.pop(path.stem, None)
        for log, before in reloading.items():
            _until(lambda: len(_WORKER.findall(_text(log))) > before, log)  # noqa: B023 - called at once

    async def _python(self, block: Block) -> None:
        filename = f"{self.page.name}:{block.line}"
        code = compile(block.text, filename, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        out = io.StringIO()
        with redirect_stdout(out):
            ended = eval(code, self.names)
            if inspect.isawaitable(ended):
                await ended
        self.printed = out.getvalue()
        lines = iter(self.printed.splitlines())
        for promised in _PROMISED.findall(block.text):
            assert promised in lines, f"{promised!r} is not printed; printed is:\n{self.printed}"

    async def _bash(self, text: str) -> None:
        self.printed = ""
        script: list[str] = []
        for line in text.replace("127.0.0.1:8420", self.dashboard).splitlines():
            words = line.split()
            if words[:1] == ["redisflow"] and len(words) > 1 and words[1] in _READY:
                self._start(line)
                continue
            if re.search(r"\bRUN\b", line):
                await self._execute(script)  # it may submit the run that is meant
                line = re.sub(r"\bRUN\b", await _newest_run(), line)
            script.append(line)
        await self._execute(script)

    async def _execute(self, script: list[str]) -> None:
        """Run the lines, and keep of them what later lines need: the variables."""
        if any(line and not _VARIABLE.fullmatch(line) for line in script):
            process = await asyncio.create_subprocess_exec(
                "bash", "-euo", "pipefail", "-c", "\n".join(script), cwd=self.folder, env=self.environment,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
            try:
                out, err = await asyncio.wait_for(process.communicate(), 90)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            assert process.returncode == 0, f"exit code {process.returncode}\n{out.decode()}{err.decode()}"
            self.printed += out.decode()
            script[:] = filter(_VARIABLE.fullmatch, script)

    def _start(self, line: str) -> None:
        """Start a service, and wait until it says that it works."""
        name = line.split()[1]
        command = line.partition(" #")[0] + (" --port 0" if name in ("dev", "ui") else "")
        log = self.folder / f".service-{len(self.services)}"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, stdout=file, stderr=file,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        self.services.append(process)
        if name == "dev":
            self.reloading.append(log)
        _until(lambda: process.poll() is not None or _READY[name].search(_text(log)), log)
        assert process.poll() is None, f"{line} ended: {_text(log)}"
        if name == "ui" and (found := _DASHBOARD.search(_text(log))):
            self.dashboard = found[1]

    def _compare(self, expected: str) -> None:
        rows = iter(self.printed.splitlines())
        for line in filter(None, map(str.strip, expected.splitlines())):
            pattern = re.compile(r"\s+".join(".*".join(map(re.escape, word.split("…"))) for word in line.split()))
            assert any(pattern.search(row) for row in rows), f"{line!r} is not printed; printed is:\n{self.printed}"

    def _end_services(self) -> None:
        for process in self.services:
            process.terminate()
        for process in self.services:
            process.wait(timeout=30)

    def _forget_modules(self) -> None:
        folder = str(self.folder) + os.sep
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(folder):
                del sys.modules[name]


async def _newest_run() -> str:
    async with Client() as rf:
        found, _ = await rf.runs(limit=1)
    assert found, "there is no run yet"
    return found[0].run_id


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _until(condition: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"not within 30 s: {_text(log)}"
        time.sleep(0.02)
