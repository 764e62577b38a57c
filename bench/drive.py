"""Runs one peer on one server: enqueues, starts its worker, reads what both tell, ends it by its own handle.

Every peer is a program of ours in `drivers/`, run in the peer's own environment, and speaks the few words that `drivers/tally.py`
explains. A rate is jobs over the time from the first start to the last finish, as the worker process itself stamps them.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.harness import Server
from bench.peers import Peer

SILENT = 60.0
"""Seconds without a line after which a peer is taken to hang."""


class PeerFailed(Exception):
    """A peer did not do what it was asked; the text ends with the last lines of its log."""


@dataclass
class Drive:
    """One peer on one server.

    Args:
        peer: who.
        server: on which server.
        count: jobs to enqueue.
        jobs: jobs to expect, where that is another number.
        each: the worker tells of the start of every job.
    """

    peer: Peer
    server: Server
    count: int
    jobs: int | None = None
    each: bool = False
    _lines: list[list[str]] = field(default_factory=list)
    _text: str = ""

    def __post_init__(self) -> None:
        self.folder = self.server.folder
        self._path = self.folder / "pipe"
        if not self._path.exists():
            os.mkfifo(self._path)
        self._pipe = os.open(self._path, os.O_RDWR)  # open for writing too: it does not end when a process does
        self._log = self.folder / "log"

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._pipe)

    def call(self, word: str) -> float:
        """Let the peer enqueue, and give the seconds that it took."""
        with self.process(word, self.count) as process:
            took = int(self.expect("took", process)[0]) / 1e9
            process.wait(30)
        return took

    @contextlib.contextmanager
    def process(self, word: str, count: int | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """The peer's program with a word, gone at the end of the block with all of its children."""
        environment = {
            **os.environ, **self.peer.environment, "BENCH_URL": self.server.tcp_url, "BENCH_PIPE": str(self._path),
            "BENCH_COUNT": str(count or self.jobs or self.count), "BENCH_RUNS": str(self.count),
            "BENCH_EACH": str(int(self.each)), **more,
        }  # fmt: skip
        with self._log.open("ab") as log:
            try:
                process = subprocess.Popen(
                    self.peer.command(word), env=environment, cwd=self.folder, stdin=subprocess.PIPE, stdout=log, stderr=log,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise PeerFailed(f"{self.peer.name}: {error}") from None
        try:
            yield process
        finally:
            end(process)

    def expect(self, word: str, process: subprocess.Popen[bytes]) -> list[str]:
        """The rest of the next line that begins with the word.

        Raises:
            PeerFailed: the process ended, said nothing for long, or ran a job twice.
        """
        deadline = time.monotonic() + SILENT
        while True:
            for number, words in enumerate(self._lines):
                if words[0] == "extra":
                    raise PeerFailed(f"{self.peer.name} ran more jobs than it was given")
                if words[0] == word:
                    del self._lines[number]
                    return words[1:]
            if select.select([self._pipe], [], [], 0.25)[0]:
                self._text += os.read(self._pipe, 65536).decode()
                *whole, self._text = self._text.split("\n")
                self._lines += [line.split() for line in whole]
            elif process.poll() is not None or time.monotonic() > deadline:
                raise PeerFailed(f"{self.peer.name}: no {word!r}\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


def end(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a process of ours and its children: they are a session of their own."""
    with contextlib.suppress(OSError):
        process.stdin.close() if process.stdin else None
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def driving(
    peer: Peer, binary: str, count: int, *options: str, jobs: int | None = None, each: bool = False
) -> Iterator[Drive]:
    """A peer on a fresh server."""
    with Server(binary, *options) as server:
        drive = Drive(peer, server, count, jobs, each)
        try:
            yield drive
        finally:
            drive.close()
