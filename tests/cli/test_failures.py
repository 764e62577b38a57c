"""errors and error: what fails, in groups, and one of them."""

from __future__ import annotations

import asyncio

import pytest

from redisflow.backend.redis import RedisBackend
from tests.cli.conftest import Call, Service
from tests.flows import start

FAILS = '{"cents": 5, "fail": true}'


def test_errors_and_error(rf: Call, shop_worker: Service) -> None:
    for run_id in ("f1", "f2"):
        rf("submit", "shop", FAILS, "--wait", "--run-id", run_id)
    listed = rf("errors")
    assert "ValueError: no \\x1b[31mstock" in listed.out
    assert "\x1b" not in listed.out
    assert listed.out.endswith("1 of 1 error in 24h00m\n")
    for grouping in ("exact", "normalized", "portable"):
        told = rf("errors", "--grouping", grouping, "--json").json
        (group,) = told["errors"]
        assert (told["total"], group["count"], group["affectedRuns"]) == (1, 2, 2)
        detail = rf("error", group["fingerprint"], "--grouping", grouping, "--json", "--limit", "1").json
        assert (detail["totalCount"], [at["runId"] for at in detail["occurrences"]]) == (2, ["f2"])
    shown = rf("error", rf("errors", "--json").json["errors"][0]["fingerprint"])
    assert shown.code == 0
    assert shown.out.startswith("ValueError: no \\x1b[31mstock\n2 failures in 2 runs, from ")
    assert "raise ValueError" in shown.out
    assert "\x1b" not in shown.out
    assert [line.split()[2] for line in shown.out.splitlines()[-2:]] == ["f2", "f1"]
    short = listed.out.splitlines()[1].split()[0]
    assert [len(part) for part in short.split(":")] == [8, 8, 8]
    assert rf("error", short).out == shown.out
    assert rf("error", "::").out == shown.out
    assert rf("errors", "--offset", "1").out == "0 of 1 error in 24h00m\n"
    assert rf("errors", "--workflow", "other", "--since", "90m").out == "0 of 0 errors in 1h30m\n"


async def test_digits_that_begin_several_fingerprints(rf: Call, backend: RedisBackend) -> None:
    for number, message in enumerate("xy"):
        claimed = await start(backend)
        await backend.fail_step(claimed, {"message": message}, [f"{hashed}{number}" * 20 for hashed in "abcde"])
    done = await asyncio.to_thread(rf, "error", "a::")
    assert done.code == 2
    assert "fingerprint='a::' is not allowed: more digits: it begins 2 of them" in done.error
    assert (await asyncio.to_thread(rf, "error", "a:b1:")).out.startswith("Error: y")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("error", "a:b:c"), 1, "no failure of fingerprint 'a:b:c' in 24h00m"),
        (("error", "a:b\x1b:c"), 1, "no failure of fingerprint"),
        (("error", "nosuch"), 2, "fingerprint"),
        (("error",), 2, "Missing argument 'FINGERPRINT'"),
        (("errors", "--grouping", "loose"), 2, "Invalid value for '--grouping'"),
        (("errors", "--since", "soon"), 2, "'soon' is not a duration"),
        (("errors", "--workflow", "a b"), 2, "workflow_slug='a b' is not allowed"),
        (("errors", "--limit", "0"), 2, "Invalid value for '--limit'"),
    ],
)
def test_wrong_calls(rf: Call, arguments: tuple[str, ...], code: int, message: str) -> None:
    done = rf(*arguments)
    assert message in done.error
    assert "\x1b" not in done.err
    assert done.code == code
