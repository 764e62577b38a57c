"""What /metrics serves: of a namespace, of a worker, over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from redisflow import Client, Retry, Settings, Skip, Worker, Workflow
from redisflow.backend.redis import RedisBackend
from redisflow.metrics import NamespaceMetrics, WorkerMetrics, serve
from redisflow.metrics import namespace as namespace_module
from redisflow.model.errors import UsageError
from tests.cli.conftest import environment, service
from tests.conftest import TestServer, free_port, until

shop = Workflow("shop", input=dict)


@shop.step(retry=Retry(attempts=2, delay="1ms"))
async def pay(input: dict) -> int:
    if input["fail"]:
        raise ValueError("no money")
    return 1


@shop.step
async def thank(pay: int) -> None:
    raise Skip("not today")


Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Values by `name{label="value",…}`."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


async def read(metrics: NamespaceMetrics) -> Samples:
    body, content_type = await metrics.response()
    assert content_type.startswith("text/plain")
    return samples(body.decode())


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace_module, "FRESH_FOR", 0.0)


async def run_both(client: Client) -> None:
    """One run that completes, one that fails after a retry."""
    async with Worker(client, [shop]):
        for fail in (False, True):
            run = await client.submit(shop, {"fail": fail})
            await asyncio.gather(run.result(timeout=20), return_exceptions=True)


async def test_a_namespace_tells_of_runs_and_steps_by_outcome(client: Client) -> None:
    await client.backend.register_plan(shop.plan)
    metrics = NamespaceMetrics(client.backend)
    before = await read(metrics)
    assert before['redisflow_runs_ended_total{outcome="completed",workflow="shop"}'] == 0
    await run_both(client)
    found = await read(metrics)
    for outcome, runs in {"completed": 1, "failed": 1, "cancelled": 0}.items():
        assert found[f'redisflow_runs_ended_total{{outcome="{outcome}",workflow="shop"}}'] == runs
    for outcome, attempts in {"completed": 1, "failed": 2, "skipped": 1, "reclaimed": 0}.items():
        assert found[f'redisflow_step_attempts_ended_total{{outcome="{outcome}",workflow="shop"}}'] == attempts
    assert found['redisflow_runs_submitted_total{workflow="shop"}'] == 2
    assert found['redisflow_step_retries_total{workflow="shop"}'] == 1
    assert found["redisflow_run_duration_seconds_count"] == 2
    assert found['redisflow_run_duration_seconds_bucket{le="+Inf"}'] == 2
    assert 0 < found["redisflow_run_duration_seconds_sum"] < 20
    assert found["redisflow_scheduling_latency_seconds_count"] == 4
    assert found["redisflow_up"] == 1


async def test_counters_begin_at_nothing_and_never_fall(client: Client) -> None:
    await run_both(client)
    metrics = NamespaceMetrics(client.backend)
    first = await read(metrics)
    assert first['redisflow_runs_submitted_total{workflow="shop"}'] == 0
    assert first["redisflow_run_duration_seconds_count"] == 0
    await run_both(client)
    second = await read(metrics)
    assert second['redisflow_runs_submitted_total{workflow="shop"}'] == 2
    counted = [name for name in first if name.split("{")[0].endswith(("_total", "_bucket", "_count"))]
    assert all(second[name] >= first[name] for name in counted)


async def test_a_closed_minute_is_added_once(backend: RedisBackend) -> None:
    """Two minutes written by hand: the counters of minute and minute together, read as time goes on."""
    await backend.register_plan(shop.plan)
    metrics = NamespaceMetrics(backend)
    await read(metrics)
    assert metrics._minute is not None
    key = backend.partitions[0].stats
    metrics._minute -= 2  # as if the last look had been two minutes ago
    for back, count in ((2, 5), (1, 7), (0, 11)):
        name = key(metrics._minute + 2 - back)
        await backend.client.hset(name, mapping={"n:shop:RunSubmitted": count, "s32": count})
        await backend.client.expire(name, 600)
    for _ in range(2):
        found = await read(metrics)
        assert found['redisflow_runs_submitted_total{workflow="shop"}'] == 23
        assert found["redisflow_step_duration_seconds_count"] == 23


async def test_labels_are_registered_names_only(backend: RedisBackend) -> None:
    await backend.register_plan(shop.plan)
    metrics = NamespaceMetrics(backend)
    await read(metrics)
    for number in range(3):  # written by hand: they have no plan, and their slug is their queue
        name = backend.partitions[0].stats(metrics._minute or 0)
        await backend.client.hset(name, f"n:wild-{number}:RunSubmitted", 1)
        await backend.client.expire(name, 600)
        await backend.save_run_submitted(f"wild-{number}", f"r{number}", version_id="v", available_at=1)
        await backend.save_step_scheduled(
            f"wild-{number}", f"r{number}", "s", available_at=1, reason="initial", attempt_number=1
        )
    text = (await metrics.response())[0].decode()
    assert "wild" not in text
    found = samples(text)
    assert found['redisflow_runs_submitted_total{workflow="other"}'] == 3
    assert found['redisflow_queue_steps{queue="other",state="due"}'] == 3


async def test_queues_and_server(client: Client) -> None:
    await client.submit(shop, {"fail": False})
    await client.submit(shop, {"fail": False}, delay="1h")
    found = await read(NamespaceMetrics(client.backend))
    assert found['redisflow_queue_steps{queue="shop",state="due"}'] == 1
    assert found['redisflow_queue_steps{queue="shop",state="delayed"}'] == 1
    assert found['redisflow_queue_oldest_due_seconds{queue="shop"}'] > 0
    assert found["redisflow_workers"] == 0
    assert 0 < found["redisflow_redis_round_trip_seconds"] < 5
    assert found["redisflow_redis_memory_bytes"] > 0
    assert found["redisflow_redis_aof_enabled"] == 0


async def test_a_look_serves_all_who_ask_soon_after(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespace_module, "FRESH_FOR", 60.0)
    metrics = NamespaceMetrics(client.backend)
    first, *rest = await asyncio.gather(*(metrics.response() for _ in range(20)))
    await client.submit(shop, {"fail": False})
    assert all(other == first for other in [*rest, await metrics.response()])


async def test_open_metrics_where_it_is_asked_for(client: Client) -> None:
    body, content_type = await NamespaceMetrics(client.backend).response("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


async def test_an_absent_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    own = TestServer()
    backend = RedisBackend(Settings(url=own.url, retry_deadline="50ms"))
    try:
        await backend.initialize()
        metrics = NamespaceMetrics(backend)
        assert (await read(metrics))["redisflow_up"] == 1
        own.kill()
        found = await read(metrics)
        assert found["redisflow_up"] == 0
        assert found["redisflow_redis_retries_total"] > 0
        assert "redisflow_workers" not in found
    finally:
        await backend.close()
        own.close()


async def test_on_a_cluster_nodes_are_added_up(cluster_server: TestServer, settings: Settings) -> None:
    on_cluster = settings.model_copy(update={"url": cluster_server.url, "partitions": 3})
    async with Client(settings=on_cluster) as client:
        metrics = NamespaceMetrics(client.backend)
        await read(metrics)
        await client.submit_many(shop, [{"fail": False}] * 9)
        found = await read(metrics)
        assert found['redisflow_queue_steps{queue="shop",state="due"}'] == 9
        assert found['redisflow_runs_submitted_total{workflow="shop"}'] == 9
        assert found["redisflow_redis_memory_bytes"] > 0
        assert found["redisflow_redis_aof_write_failed"] == 0


async def fetch(port: int) -> Samples:
    def get() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())

    return samples(await asyncio.to_thread(get))


async def test_a_worker_tells_of_its_turns(client: Client) -> None:
    async with (
        Worker(client, [shop], concurrency=7) as worker,
        serve(WorkerMetrics(worker), host="127.0.0.1", port=0) as port,
    ):
        for fail in (False, True):
            run = await client.submit(shop, {"fail": fail})
            await asyncio.gather(run.result(timeout=20), return_exceptions=True)
        found = await fetch(port)
    outcomes = {"completed": 1, "failed": 2, "skipped": 1, "released": 0}
    for outcome, count in outcomes.items():
        assert found[f'redisflow_worker_outcomes_total{{outcome="{outcome}"}}'] == count
    turns = found["redisflow_worker_turns_total"]
    assert turns >= 3
    assert found["redisflow_worker_turn_round_trip_seconds_count"] == turns
    handovers = found["redisflow_worker_handovers_total"]
    assert handovers >= 1  # of the second run at the latest
    assert found["redisflow_worker_turn_claims_sum"] + handovers == 4
    assert found["redisflow_worker_turn_outcomes_sum"] == 4
    assert found["redisflow_worker_slots"] == 7
    assert 0 <= found["redisflow_worker_heartbeat_age_seconds"] < 20


async def test_the_namespace_over_http(client: Client) -> None:
    await client.backend.register_plan(shop.plan)
    async with serve(NamespaceMetrics(client.backend), host="127.0.0.1", port=0) as port:
        assert (await fetch(port))["redisflow_up"] == 1
        with pytest.raises(UsageError, match=f"127.0.0.1:{port}.*--metrics-port"):
            async with serve(NamespaceMetrics(client.backend), host="127.0.0.1", port=port):
                pass


async def test_the_commands_serve(settings: Settings, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    env = environment(REDISFLOW_URL=str(settings.url), REDISFLOW_NAMESPACE=settings.namespace)
    flow = tmp_path / "flow.py"
    flow.write_text("from redisflow import task\n\n\n@task\ndef hello() -> str:\n    return 'hello'\n")
    by_setting = {**env, "REDISFLOW_METRICS_PORT": str(ports[1])}
    with (
        service("worker", str(flow), "--metrics-port", str(ports[0]), cwd=tmp_path, env=env) as worker,
        service("reclaimer", cwd=tmp_path, env=by_setting) as reclaimer,
    ):
        worker.expect("metrics at http://127.0.0.1:")
        reclaimer.expect("metrics at http://127.0.0.1:")
        assert (await fetch(ports[0]))["redisflow_worker_slots"] == 100
        found = await fetch(ports[1])
        assert found["redisflow_workers"] == 1
        assert found['redisflow_runs_submitted_total{workflow="hello"}'] == 0
        for running in (worker, reclaimer):
            running.process.terminate()
            await asyncio.to_thread(until, lambda running=running: running.process.poll() is not None, 20)
            assert running.process.returncode == 0, running.text


def test_without_the_extra_one_line_says_what_to_install(settings: Settings, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['prometheus_client'] = None\n"
        "from redisflow.cli import main\nmain(['reclaimer', '--metrics-port', '0'])"
    )
    env = environment(REDISFLOW_URL=str(settings.url), REDISFLOW_NAMESPACE=settings.namespace)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "Error: metrics need the extra `metrics`: pip install 'redisflow[metrics]'\n"


def test_a_service_without_metrics_loads_none(tmp_path: Path) -> None:
    code = (
        "import sys\nimport redisflow, redisflow.cli.services, redisflow.worker\n"
        "print(sorted({'prometheus_client', 'redisflow.metrics'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
