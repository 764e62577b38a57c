"""stats: the figures of a window."""

from __future__ import annotations

from tests.cli.conftest import Call, Service

ORDER = '{"cents": 5}'
FAILS = '{"cents": 5, "fail": true}'


def rows(out: str) -> dict[str, list[str]]:
    """Words of each line by its first."""
    return {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.split()}


def test_stats(rf: Call, shop_worker: Service) -> None:
    for number, given in enumerate((ORDER, ORDER, FAILS)):
        rf("submit", "shop", given, "--wait", "--run-id", f"r{number}")
    done = rf("stats")
    assert done.code == 0
    found = rows(done.out)
    assert found["runs"][:5] == ["3", "2", "1", "0", "66.7%"]
    assert found["steps"][2] == "1"
    assert found["wait"][:3] == ["for", "a", "worker"]
    assert int(found["wait"][3]) == int(found["step"][0])
    assert found["run"][0] == "3"
    assert len(found["run"]) == 7
    assert found["failures"][:3] == ["1,", "1", "different:"]
    told = rf("stats", "--json").json
    assert (told["successRate"]["totalRuns"], told["throughput"]["runsFailed"]) == (3, 1)
    assert told["timeRange"]["durationUs"] >= 24 * 3_600_000_000
    step = rf("stats", "--workflow", "shop", "--step", "bill", "--since", "10m", "--json").json
    assert (step["stepDuration"]["count"], step["stepDuration"]["stepId"]) == (2, "bill")
    assert rows(rf("stats", "--workflow", "other").out)["runs"] == ["0", "0", "0", "0", "0.0"]


def test_stats_of_nothing(rf: Call, registered: None) -> None:
    rf("submit", "shop", ORDER)
    found = rows(rf("stats").out)
    assert found["step"] == ["0"]
    assert found["retries"] == ["0"]
    assert found["queues"][:3] == ["now", "1", "pending"]
    assert "oldest" in found["queues"]


def test_wrong_calls(rf: Call) -> None:
    for arguments, message in [
        (("--workflow", "a b"), "workflow_slug='a b' is not allowed"),
        (("--step", "a b"), "step_id='a b' is not allowed"),
        (("--since", "-1s"), "--since"),
    ]:
        done = rf("stats", *arguments)
        assert message in done.error
        assert done.code == 2


def test_stats_of_the_last_minutes(rf: Call, shop_worker: Service) -> None:
    for number, given in enumerate((ORDER, ORDER, FAILS)):
        rf("submit", "shop", given, "--wait", "--run-id", f"r{number}")
    found = rows(rf("stats", "--minutes", "5").out)
    assert found["wait"][3] == found["step"][0]
    assert found["run"][0] == "3"
    told = rf("stats", "--minutes", "5", "--json").json
    assert told["minutes"] == 5
    assert (told["events"]["RunSubmitted"], told["events"]["WorkflowFailed"]) == (3, 1)
    assert sum(types.get("RunSubmitted", 0) for types in told["byMinute"]) == 3
    assert told["runUs"]["count"] == 3
    assert 0 < told["runUs"]["p50"] <= told["runUs"]["p99"]
    other = rf("stats", "--minutes", "5", "--workflow", "other", "--json").json
    assert set(other["events"].values()) == {0}
    assert "runUs" not in other


def test_single_steps_have_no_counters(rf: Call, registered: None) -> None:
    refused = rf("stats", "--minutes", "5", "--step", "bill")
    assert refused.code == 2
    assert "--step" in refused.err
    assert rf("stats", "--minutes", "0").code == 2
