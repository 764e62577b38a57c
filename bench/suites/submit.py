"""Submit: N jobs in the peer's bulk call, and N single calls of which 50 are under way."""

from __future__ import annotations

from collections.abc import Mapping

from bench.drive import driving
from bench.peers import Peer
from bench.suites.base import Goal, Setup, Suite


def _submit(peer: Peer, setup: Setup) -> Mapping[str, float]:
    found = {}
    for name, word in (("in bulk", "enqueue"), ("single, 50 under way", "singles")):
        with driving(peer, setup.server, setup.count) as drive:
            found[name] = setup.count / drive.call(word)
    return found


SUBMIT = Suite(
    "submit", "submit", 20_000, {"in bulk": "jobs/s", "single, 50 under way": "jobs/s"}, _submit,
    goals={"in bulk": Goal(1.5, "least"), "single, 50 under way": Goal(20_000, "least", "")},
)  # fmt: skip
