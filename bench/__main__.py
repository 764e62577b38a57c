"""The benchmarks that others can run.

    python -m bench peers                                  install the queues to compare with
    python -m bench run --suite drain,latency --runs 5     measure, alternating between the peers
    python -m bench report                                 write plots and tables into docs/

`run` writes `bench/results/<suite>.json` and prints a table. Each repetition has a server of its own on a loopback port.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence

from bench.drive import PeerFailed
from bench.peers import Peer, find_peers, install
from bench.results import Results, machine, show
from bench.suites import SUITES, Setup, Suite
from redisflow.embedded.program import find_program

SLOW_RUNS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure")
    run.add_argument("--suite", default="drain", help=f"one or more of {','.join(SUITES)}, or all; default: drain")
    run.add_argument("--peers", default="", help="names with commas; default: all that are installed")
    run.add_argument("--runs", type=int, default=5, help="repetitions; slow peers get at most 3; default: 5")
    run.add_argument("--count", type=int, help="jobs a repetition; slow peers have limits; default: the suite's")
    run.add_argument(
        "--server", default=shutil.which("redis-server") or "", help="server binary; default: redis-server"
    )
    peers = commands.add_parser("peers", help="install the peers into bench/.peers/")
    peers.add_argument("names", nargs="*", help="default: all")
    commands.add_parser("report", help="write plots and tables into docs/ from bench/results/")
    given = parser.parse_args(arguments)
    if given.command == "peers":
        install(given.names)
    elif given.command == "report":
        from bench.report import write

        write()
    else:
        names = list(SUITES) if given.suite == "all" else given.suite.split(",")
        if unknown := [name for name in names if name not in SUITES]:
            parser.error(f"no such suite: {', '.join(unknown)}; there are {', '.join(SUITES)}")
        if given.runs < 1 or (given.count is not None and given.count < 100):
            parser.error("--runs must be at least 1, and --count at least 100")
        chosen = find_peers(name for name in given.peers.split(",") if name)
        for name in names:
            suite = SUITES[name]
            setup = Setup(given.server or find_program(), given.count or suite.count)
            results = measure(suite, chosen, setup, given.runs)
            show(results)
            print(f"written to {results.save()}")


def measure(suite: Suite, peers: Sequence[Peer], setup: Setup, runs: int) -> Results:
    """Repeat a suite, alternating between the peers; a peer that fails is left out, and told."""
    results = Results(suite.name, machine(setup.server))
    for peer in peers:
        if suite.takes(peer) and not peer.installed:
            results.missing[peer.name] = "not installed: make bench-peers"
    going = [peer for peer in peers if suite.takes(peer) and peer.installed]
    for peer in going:
        results.versions[peer.name] = peer.version()
        results.counts[peer.name] = min(setup.count, peer.limit or setup.count)
    for number in range(runs):
        for peer in going:
            if peer.name in results.missing or (peer.limit and number >= SLOW_RUNS):
                continue
            print(f"{suite.name}: {peer.name}, {number + 1} of {runs}", flush=True)
            try:
                results.add(peer.name, suite.measure(peer, Setup(setup.server, results.counts[peer.name])))
            except PeerFailed as error:
                results.drop(peer.name, str(error))
    return results


if __name__ == "__main__":
    main()
