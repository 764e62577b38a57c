"""The dashboard and the alert rules in docs/ speak of metrics that are served, and of nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from redisflow import Client, Worker
from redisflow.metrics import NamespaceMetrics, WorkerMetrics
from tests.metrics.test_metrics import samples, shop

DOCS = Path(__file__).parent.parent.parent / "docs" / "observability"
DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((DOCS / "alerts.yml").read_text())
NAME = re.compile(r"\bredisflow_\w+")


def panel_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]


def rules() -> list[dict[str, Any]]:
    return [rule for group in RULES["groups"] for rule in group["rules"]]


async def served(client: Client) -> set[str]:
    """Names of all samples of both sources."""
    async with Worker(client, [shop]) as worker:
        run = await client.submit(shop, {"fail": False})
        await run.result(timeout=20)
        await client.submit(shop, {"fail": False}, delay="1h")  # so that a queue has something to tell
        for keys in client.backend.partitions:
            await client.backend.reclaim_round(0, threshold_us=10**9, reclaimed_by="r", tick_us=1)
            assert await client.backend.client.hget(keys.meta, "tick")
        registry = CollectorRegistry()
        registry.register(WorkerMetrics(worker))
        text = generate_latest(registry).decode()
        text += (await NamespaceMetrics(client.backend).response())[0].decode()
    return {name.partition("{")[0] for name in samples(text.replace("\n\n", "\n"))}


AOF_ONLY = {
    "redisflow_redis_aof_buffer_bytes",
    "redisflow_redis_aof_delayed_fsyncs_total",
    "redisflow_redis_aof_pending_fsyncs",
}


async def test_every_metric_that_is_shown_is_served(client: Client) -> None:
    await client.backend.client.config_set("appendonly", "yes")
    try:
        known = await served(client)
    finally:
        await client.backend.client.config_set("appendonly", "no")
    shown = {name for query in panel_queries() for name in NAME.findall(query)}
    warned = {name for rule in rules() for name in NAME.findall(rule["expr"])}
    assert shown - known == set()
    assert warned - known == set()
    assert known >= AOF_ONLY
    families = {re.sub("_(bucket|sum|count|created)$", "", name) for name in known}
    assert set(NAME.findall((DOCS.parent / "observability.md").read_text())) == families
    unseen = {re.sub("_(bucket|sum|count|created)$", "", name) for name in known - shown}
    assert unseen <= {re.sub("_(bucket|sum|count)$", "", name) for name in shown}, "served, and on no panel"


def test_the_dashboard_is_one() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["title"] and panel["targets"] for panel in DASHBOARD["panels"])
    places = [tuple(panel["gridPos"][side] for side in "xywh") for panel in DASHBOARD["panels"]]
    cells = [(x + i, y + j) for x, y, w, h in places for i in range(w) for j in range(h)]
    assert len(set(cells)) == len(cells), "two panels overlap"
    assert max(x for x, _ in cells) == 23


def test_rules_have_their_form() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) == 10
    for rule in rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("call", [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_agrees(call: tuple[str, str]) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here: it comes with Prometheus")
    done = subprocess.run([tool, "check", call[0], str(DOCS / call[1])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_promtool_finds_no_fault_with_what_is_served(client: Client) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here: it comes with Prometheus")
    async with Worker(client, [shop]) as worker:
        registry = CollectorRegistry()
        registry.register(WorkerMetrics(worker))
        text = generate_latest(registry) + (await NamespaceMetrics(client.backend).response())[0]
    lines, seen = [], set()  # both tell of the retries of their process
    for line in text.decode().splitlines():
        if "redisflow_redis_retries" not in line or line not in seen:
            lines.append(line)
            seen.add(line)
    given = "\n".join(lines) + "\n"
    done = subprocess.run([tool, "check", "metrics"], input=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_promtool_reads_every_query_of_the_dashboard(tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool here: it comes with Prometheus")
    queries = [query for query in panel_queries() if not query.startswith("label_values")]
    filled = [query.replace("$__rate_interval", "1m").replace("$job", ".*") for query in queries]
    recorded = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled)]
    rules_file = tmp_path / "queries.yml"
    rules_file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run([tool, "check", "rules", str(rules_file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"{len(queries)} rules found" in done.stdout + done.stderr
