"""`bench`: it measures, leaves nothing of its own, and touches nothing of others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_sync

from redisflow.backend.redis import RedisBackend
from redisflow.backend.redis.purge import purge
from redisflow.settings import Settings
from tests.cli.conftest import Call, service
from tests.conftest import TestServer, until

OWN = b"{redisflow-bench-"
FOREIGN = b"{redisflow-bench-}:foreign"
RATES = ("submitsPerSecond", "drainedPerSecond", "claimsPerSecond")


@pytest.fixture
def raw(server: TestServer) -> Iterator[redis_sync.Redis]:
    client = server.client()
    yield client
    client.close()


def lasting(raw: redis_sync.Redis) -> dict[bytes, bytes]:
    """What is on the server for good; a key with a TTL may go at any time."""
    return {key: raw.dump(key) for key in raw.keys("*") if raw.ttl(key) == -1}


def own_keys(raw: redis_sync.Redis) -> list[bytes]:
    return [key for key in raw.keys("*") if key.startswith(OWN)]


def test_figures_as_json_and_nothing_left(rf: Call, raw: redis_sync.Redis, registered: None) -> None:
    rf("submit", "shop", '{"cents": 5}')
    raw.set(FOREIGN, "kept")
    before = lasting(raw)
    try:
        done = rf("bench", "--count", "200", "--json")
        assert done.code == 0, done.err
        assert lasting(raw) == before
        assert own_keys(raw) == [FOREIGN]
    finally:
        raw.delete(FOREIGN)
    found = done.json
    assert found["count"] == 200
    assert all(found[rate] > 0 for rate in RATES)
    for measure in ("roundTripMs", "pickUpMs"):
        assert 0 < found[measure]["p50"] <= found[measure]["p99"]
    assert found["pickUpMs"]["p50"] > found["roundTripMs"]["p50"]
    assert found["server"] == {"version": found["server"]["version"], "aof": False, "partitions": 1}


def test_table(rf: Call, raw: redis_sync.Redis) -> None:
    done = rf("bench", "--count", "100")
    assert done.code == 0, done.err
    for text in ("submit_many", "steps/s", "claims/s", "p99", "100 runs a measure", "without AOF"):
        assert text in done.out
    assert own_keys(raw) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_nothing_left_after_a_signal(
    raw: redis_sync.Redis, tmp_path: Path, env: dict[str, str], number: int, code: int
) -> None:
    with service("bench", "--count", "200000", cwd=tmp_path, env=env) as running:
        until(lambda: own_keys(raw), 20)
        running.expect("deleted at the end")
        running.signal(number)
        assert running.wait() == code
        assert "Traceback" not in running.text
    assert own_keys(raw) == []


@pytest.mark.parametrize("count", ["0", "99", "1000001", "many"])
def test_a_wrong_count(rf: Call, count: str) -> None:
    done = rf("bench", "--count", count)
    assert done.code == 2
    assert "--count" in done.error


def test_no_server(rf: Call, tmp_path: Path) -> None:
    done = rf("bench", "--url", f"unix://{tmp_path}/none.sock")
    assert done.code == 1
    assert "none.sock" in done.error


async def test_purge_of_a_cluster_leaves_the_neighbour(cluster_server: TestServer) -> None:
    url = f"redis+cluster://127.0.0.1:{cluster_server.port}"
    mine, other = (RedisBackend(Settings(url=url, namespace=name)) for name in ("purged", "purged2"))
    await mine.initialize()
    await other.initialize()
    try:
        assert await purge(mine) >= len(mine.partitions)
        left = [key async for key in other.client.scan_iter(match="{purged*")]
        assert left
        assert all(key.startswith(b"{purged2") for key in left)
        assert await purge(other) == len(left)
    finally:
        await mine.close()
        await other.close()
