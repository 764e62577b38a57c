"""`doctor` tells what is wrong with a server, and the fix; it fails only where nothing can work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from redisflow.backend.redis.inspect import Facts
from redisflow.cli.doctor import Check, clock_difference, cluster, persistence, skew, sorted_sets, stream_nodes
from tests.cli.conftest import Call, Service
from tests.conftest import TestServer


@pytest.fixture
def own_server() -> Iterator[Callable[..., str]]:
    """A server with options of its own; gives its URL."""
    started: list[TestServer] = []

    def start(*options: str) -> str:
        started.append(TestServer(*options))
        return started[-1].url

    yield start
    for server in started:
        server.close()


def verdicts(done: Any) -> dict[str, str]:
    return {check["name"]: check["verdict"] for check in done.json}


def test_server_that_evicts(rf: Call, own_server: Callable[..., str]) -> None:
    done = rf("doctor", "--json", "--url", own_server("--maxmemory-policy", "allkeys-lru"))
    assert done.code == 1
    assert (verdicts(done)["server"], verdicts(done)["eviction"]) == ("fail", "fail")


def test_durable_server(rf: Call, own_server: Callable[..., str]) -> None:
    done = rf("doctor", "--json", "--url", own_server("--appendonly", "yes", "--appendfsync", "always"))
    assert done.code == 0
    assert verdicts(done)["persistence"] == "ok"


def test_server_that_forbids_config(rf: Call, own_server: Callable[..., str]) -> None:
    done = rf("doctor", "--json", "--url", own_server("--rename-command", "CONFIG", ""))
    assert done.code == 0
    assert verdicts(done)["stream nodes"] == "warn"


def test_cluster(rf: Call, cluster_server: TestServer) -> None:
    done = rf("doctor", "--json", "--url", cluster_server.url, "--namespace", "doctor")
    assert done.code == 0, done.out
    found = {check["name"]: check for check in done.json}
    assert found["cluster"]["finding"] == "state ok, 16384 slots ok, 1 primaries"
    assert rf("queues", "--url", cluster_server.url, "--namespace", "doctor").out == "every queue is empty\n"


@pytest.mark.parametrize(
    ("check", "facts", "verdict"),
    [
        (persistence, Facts({"aof_enabled": 1}, {"appendfsync": "everysec"}), "ok"),
        (persistence, Facts({"aof_enabled": 1}, {"appendfsync": "no"}), "warn"),
        (persistence, Facts({"aof_enabled": 1, "aof_last_write_status": "err"}), "fail"),
        (stream_nodes, Facts({}, {"stream-node-max-bytes": "4096"}), "warn"),
        (stream_nodes, Facts({}, {"stream-node-max-bytes": "0"}), "warn"),
        (sorted_sets, Facts({}, {"zset-max-listpack-entries": "128"}), "warn"),
        (sorted_sets, Facts({}, {"zset-max-listpack-entries": "0"}), "ok"),
        (clock_difference, Facts({}, clock_us=-5_000_000, round_trip_us=100), "warn"),
        (clock_difference, Facts({}, clock_us=900_000, round_trip_us=100), "ok"),
        (skew, Facts({}, meta=[{"skew": 0}, {"skew": 2_000_000}]), "warn"),
        (cluster, Facts({}, cluster={"cluster_state": "fail"}), "fail"),
    ],
)
def test_judgements(check: Callable[[Facts], Check], facts: Facts, verdict: str) -> None:
    assert check(facts).verdict == verdict


def test_doctor(rf: Call) -> None:
    checks = {check["name"]: check for check in rf("doctor", "--json").json}
    assert checks["server"]["verdict"] == "ok"
    assert checks["eviction"]["verdict"] == "ok"
    assert checks["scripts"]["verdict"] == "ok"
    assert checks["stream nodes"]["verdict"] == "ok"
    assert checks["clock"]["verdict"] == "ok"
    assert checks["persistence"]["verdict"] == "warn"
    assert checks["reclaimer"] == {
        "name": "reclaimer", "verdict": "warn", "finding": "none has run yet",
        "fix": "run `redisflow reclaimer`; it takes steps back from dead workers",
    }  # fmt: skip
    assert rf("doctor").code == 0


def test_doctor_sees_a_worker(rf: Call, shop_worker: Service) -> None:
    checks = {check["name"]: check for check in rf("doctor", "--json").json}
    assert checks["workers"]["finding"].startswith("1 alive, 100 slots")


@pytest.mark.parametrize("as_json", [["--json"], []])
def test_doctor_without_a_server(rf: Call, as_json: list[str]) -> None:
    done = rf("doctor", "--url", "redis://127.0.0.1:1/0", *as_json)
    assert done.code == 1
    assert "cannot use Redis" in done.out
    assert "Traceback" not in done.err
