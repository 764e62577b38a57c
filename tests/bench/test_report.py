"""Results and what is made of them: goals, tables between markers, plots."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the extra `bench`")

from bench import report, results
from bench.results import Results, load, verdict
from bench.suites import SUITES, Goal


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Results:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(report, "FOLDER", tmp_path)
    made = Results(
        "drain", {"server": "Redis", "cores": "2", "processor": "x", "date": "today", "load average before": "0.1"}
    )
    made.versions, made.counts = {"redisflow": "1", "bullmq": "2"}, {"redisflow": 10, "bullmq": 10}
    for rate in (100.0, 300.0, 200.0):
        made.add("redisflow", {"rate": rate, "server CPU": 8, "worker CPU": 1})
        made.add("bullmq", {"rate": rate / 2, "server CPU": 10, "worker CPU": 10})
    return made


def test_results_survive_a_file(drain: Results) -> None:
    assert load(drain.save()) == drain


def test_a_ratio_is_of_medians(drain: Results) -> None:
    assert drain.ratio("rate", "redisflow") == 2
    assert drain.ratio("rate", "huey") is None


@pytest.mark.parametrize(
    ("measure", "goal", "reached"),
    [
        ("rate", Goal(1.4, "least"), True), ("rate", Goal(2.1, "least"), False), ("server CPU", Goal(0.8, "most"), True),
        ("server CPU", Goal(0.75, "most"), False), ("rate", Goal(200, "least", ""), True), ("rate", Goal(1, "least", "huey"), None),
        ("rate", None, None),
    ],
)  # fmt: skip
def test_a_goal_is_reached_or_not(drain: Results, measure: str, goal: Goal | None, reached: bool | None) -> None:
    assert verdict(drain, measure, goal) is reached


def test_a_peer_that_failed_leaves_no_figures(drain: Results) -> None:
    drain.drop("bullmq", "why")
    assert "bullmq" not in drain.values["rate"]
    assert drain.ratio("rate", "redisflow") is None


def test_every_goal_is_of_a_measure() -> None:
    for suite in SUITES.values():
        assert set(suite.goals) <= set(suite.units)


def test_report_writes_between_markers_only(drain: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed")
    drain.save()
    page = tmp_path / "page.md"
    page.write_text(
        "before\n<!-- bench:drain -->\nold\n<!-- /bench -->\nbetween\n<!-- bench:latency -->\nkept\n<!-- /bench -->\nafter\n"
    )
    monkeypatch.setattr(report, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(report, "FILES", (page,))
    monkeypatch.setattr(report, "ROOT", tmp_path / "bench")
    report.write()
    text = page.read_text()
    assert text.startswith(
        "before\n<!-- bench:drain -->\n\n![No-op jobs a second, one worker process](benchmarks/drain.svg)\n\n| queue |"
    )
    assert "| **redisflow** 1 | 200 (100 to 300) |" in text
    assert "- server CPU: ≤ 0.75 x bullmq: 0.80 x, **missed**" in text
    assert text.endswith("<!-- /bench -->\nbetween\n<!-- bench:latency -->\nkept\n<!-- /bench -->\nafter\n")
    assert "old" not in text
    for suffix in ("svg", "png"):
        assert (tmp_path / "images" / f"drain.{suffix}").stat().st_size > 1_000
    report.write()
    assert page.read_text() == text
