"""The benchmark suite on small counts: every job is counted, processes are gone, and a peer that fails is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.__main__ import measure
from bench.drive import PeerFailed, driving
from bench.peers import PEERS, Peer, find_peers
from bench.suites import SUITES, Setup, Suite
from tests.conftest import server_binary, until

COUNT = 200


@pytest.fixture
def setup() -> Setup:
    return Setup(server_binary(), COUNT)


@pytest.fixture
def own() -> Peer:
    return find_peers(["redisflow"])[0]


@pytest.fixture(autouse=True)
def no_children() -> Iterator[None]:
    before = set(psutil.Process().children(recursive=True))
    yield
    until(lambda: not set(psutil.Process().children(recursive=True)) - before)


@pytest.mark.parametrize("name", ["drain", "chain", "submit", pytest.param("memory", marks=pytest.mark.slow), "claim"])
def test_a_suite_measures_what_it_names(setup: Setup, own: Peer, name: str) -> None:
    results = measure(SUITES[name], [own], setup, 1)
    assert results.missing == {}
    for unit in SUITES[name].units:
        assert results.values[unit]["redisflow"][0] > 0, unit


def test_latency_is_measured_between_processes(setup: Setup, own: Peer) -> None:
    found = SUITES["latency"].measure(own, dataclasses.replace(setup, count=20))
    assert 0 < found["p50"] <= found["p99"] < 10_000


def test_two_workers_share(setup: Setup, own: Peer) -> None:
    found = SUITES["workers"].measure(own, setup)
    assert found["two to one"] == pytest.approx(found["two"] / found["one"])
    assert 0.5 <= found["greater share"] <= 1


def test_every_job_is_waited_for(setup: Setup, own: Peer) -> None:
    with driving(own, setup.server, COUNT) as drive:
        drive.call("enqueue")
        with drive.process("work") as worker:
            drive.expect("last", worker)
            info = drive.server.info()
            assert drive.expect("share", worker) == [str(COUNT)]
        assert info["connected_clients"] > 0


def test_a_peer_that_fails_is_left_out_and_told(setup: Setup, own: Peer) -> None:
    class Known(Peer):
        def version(self) -> str:
            return "1"

    class Broken(Known):
        def command(self, word: str) -> list[str]:
            return ["/no/such/program", word]

    class Silent(Known):
        def command(self, word: str) -> list[str]:
            return ["false", word]

    for kind, text in ((Broken, "no/such/program"), (Silent, "no 'took'")):
        peer = kind(**{field.name: getattr(own, field.name) for field in dataclasses.fields(own)})
        results = measure(SUITES["drain"], [peer], setup, 2)
        assert text in results.missing["redisflow"]
        assert all(not by_peer for by_peer in results.values.values())


def test_a_peer_that_runs_a_job_twice_is_found(setup: Setup, own: Peer) -> None:
    with driving(own, setup.server, 1) as drive, drive.process("work") as worker:
        Path(drive.folder, "pipe").write_text("extra 2\n")
        with pytest.raises(PeerFailed, match="more jobs"):
            drive.expect("last", worker)


def test_a_peer_that_is_not_installed_is_told(setup: Setup) -> None:
    absent = dataclasses.replace(PEERS[1], name="absent")
    results = measure(SUITES["drain"], [absent], setup, 1)
    assert results.missing == {"absent": "not installed: make bench-peers"}


def test_peers_take_turns() -> None:
    seen: list[str] = []

    def note(peer: Peer, setup: Setup) -> dict[str, float]:
        seen.append(f"{peer.name} {setup.count}")
        return {"rate": 1.0}

    class Here(Peer):
        installed = property(lambda self: True)  # type: ignore[assignment]

        def version(self) -> str:
            return "1"

    peers = [Here(name, (), "", PEERS[0].guarantees, limit=limit) for name, limit in (("fast", None), ("slow", 10))]
    measure(Suite("drain", "", 1, {"rate": "jobs/s"}, note), peers, Setup(server_binary(), 50), 4)
    assert seen == ["fast 50", "slow 10"] * 3 + ["fast 50"]


def test_an_unknown_peer_is_named() -> None:
    with pytest.raises(SystemExit, match=r"nobody.*there are redisflow, bullmq"):
        find_peers(["nobody"])
