"""Each page over real runs: what it shows, that nothing of a run is ever markup, and that looks into the past are right."""

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser

import httpx
import pytest

from redisflow import Client, Submission
from redisflow.model.fingerprints import GROUPINGS
from redisflow.model.workflow import Plan
from redisflow.web import WebOptions
from redisflow.web.render import duration
from tests.conftest import eventually
from tests.web.conftest import HOSTILE, Browser, Open, Stream, ended, shop, worker

PAGES = ("/", "/runs", "/errors", "/workflows", "/workflows/shop", "/queues", "/workers")


class Markup(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_an_empty_namespace_has_every_page(browser: Browser) -> None:
    for page in PAGES:
        await browser.get(page, 404 if page == "/workflows/shop" else 200)
    assert "No workflow is registered" in await browser.get("/workflows")
    assert "No run fits" in await browser.get("/runs")


async def test_a_finished_run_shows_graph_timeline_payloads_logs_and_events(client: Client, browser: Browser) -> None:
    run_id = await ended(client, name="ada", cents=7, flaky=True)
    found = Markup(await browser.get(f"/runs/{run_id}"))
    nodes = [attrs["class"] for tag, attrs in found.tags if tag == "g"]
    assert sorted(str(node) for node in nodes) == ["node s-completed"] * 3 + ["node s-skipped"]
    bars = [attrs for tag, attrs in found.tags if tag == "svg" and attrs.get("class") == "bars"]
    assert len(bars) == 5, "four steps, one of them twice"
    for text in ("price of ada", "7 cents ada plain", '"flaky": true', "no gift", "StepRetrying", "ValueError: flaky"):
        assert text in found.text, text


async def test_the_stretches_on_the_page_add_up_to_the_microsecond(client: Client, browser: Browser) -> None:
    run_id = await ended(client, flaky=True)
    html = await browser.get(f"/runs/{run_id}")
    rows = re.findall(r"<tr><th scope=\"row\">.*?</tr>", html, re.S)
    assert len(rows) == 5
    for row in rows:
        cells = re.findall(r"<td class=\"right mono nowrap\"[^>]*>([^<]*)</td>", row)
        micros = [
            round(float(cell.split()[0].replace(",", "")) * (1000 if "ms" in cell else 1_000_000)) if cell else 0
            for cell in cells
        ]
        assert sum(micros[:4]) == micros[4] > 0


async def test_a_run_is_shown_as_it_was_at_an_event(client: Client, browser: Browser) -> None:
    run_id = await ended(client, cents=7)
    wires = await client.backend.load_wire_events(run_id)
    started = next(wire for wire in wires if wire["type"] == "StepStarted" and wire["stepId"] == "charge")
    html = await browser.get(f"/runs/{run_id}?at={started['eventId']}")
    found = Markup(html)
    classes = {str(attrs["class"]) for tag, attrs in found.tags if tag == "g"}
    assert "node s-running" in classes
    assert "7 cents" not in found.text.split("Logs")[0]
    assert 'action="/runs/' not in html, "nothing can be done to the past"
    assert "no event up to 5" in await browser.get(f"/runs/{run_id}?at=5", 404)
    assert "at=" in await browser.get(f"/runs/{run_id}?at=x", 400)


@pytest.mark.parametrize("place", ["name", "fail"])
async def test_payloads_errors_and_logs_are_never_markup(client: Client, browser: Browser, place: str) -> None:
    run_id = await ended(client, **{place: HOSTILE})
    listed = await client.backend.get_errors_list()
    pages = ["/", "/runs", "/errors", f"/runs/{run_id}", *(f"/errors/{group.fingerprint}" for group in listed.errors)]
    for page in pages:
        html = await browser.get(page)
        found = Markup(html)
        assert not [
            tag for tag, attrs in found.tags if tag == "img" or any(str(name).startswith("on") for name in attrs)
        ]
        assert [attrs.get("src") for tag, attrs in found.tags if tag == "script"] == ["/static/app.js"]
        assert "\u202e" not in html
        assert "\x1b" not in html
    assert "<script>alert('x')</script>" in Markup(await browser.get(f"/runs/{run_id}")).text


async def test_a_hostile_tail_is_text_too(client: Client, http: httpx.AsyncClient) -> None:
    run_id = await ended(client, name=HOSTILE)
    async with Stream(http.app, f"/runs/{run_id}/live") as stream:  # type: ignore[attr-defined]
        line = json.loads((await stream.next("log"))["data"])
        part = (await stream.next("part"))["data"]
    assert line["text"].startswith("price of <script>"), "the page's script puts it in as text"
    assert "\u202e" not in line["text"]
    assert "<script" not in part


async def test_a_large_payload_is_cut_with_a_download(client: Client, browser: Browser) -> None:
    run = await client.submit(shop, {"name": "x" * 50_000})
    html = await browser.get(f"/runs/{run.id}")
    assert len(html) < 40_000 + 51_000, "once on the page, cut, and once in the form"
    assert "The first 4,000 of 50,011 characters" in html
    answer = await browser.http.get(f"/runs/{run.id}/input.json")
    assert answer.json() == {"name": "x" * 50_000}
    assert answer.headers["content-disposition"].startswith("attachment")
    await browser.get(f"/runs/{run.id}/output.json", 404)


async def test_all_events_can_be_downloaded(client: Client, browser: Browser) -> None:
    run_id = await ended(client)
    text = await browser.get(f"/runs/{run_id}/events.jsonl")
    assert [json.loads(line) for line in text.splitlines()] == await client.backend.load_wire_events(run_id)


async def test_runs_are_filtered_and_paged(client: Client, browser: Browser) -> None:
    runs = [await client.submit(shop, {"n": n}, tags=["even" if n % 2 == 0 else "odd"]) for n in range(60)]
    await client.cancel(runs[0].id)

    def listed(html: str) -> list[str]:
        return re.findall(r'name="run" value="([^"]+)"', html)

    newest = [run.id for run in reversed(runs)]
    assert listed(await browser.get("/runs")) == newest[:50]
    assert listed(await browser.get("/runs?page=2")) == newest[50:]
    assert listed(await browser.get("/runs?status=cancelled")) == [runs[0].id]
    assert listed(await browser.get("/runs?tag=even&status=pending")) == [run.id for run in reversed(runs[2::2])]
    assert listed(await browser.get(f"/runs?id={runs[7].id}")) == [runs[7].id]
    prefix = runs[7].id[:8]
    assert listed(await browser.get(f"/runs?id={prefix}")) == [i for i in newest if i.startswith(prefix)]
    assert len(listed(await browser.get("/runs?since=15m"))) == 50
    assert "Looked at 30 of 30 runs" in await browser.get("/runs?since=15m&tag=even")
    await client.submit_many(shop, [Submission({}, tags=["many"]) for _ in range(120)])
    collected, path = [], "/runs?since=15m&tag=many"
    while path:
        html = await browser.get(path)
        collected += listed(html)
        onward = re.search(r'rel="next" href="([^"]+)"', html)
        path = unescape(onward[1]) if onward else ""
    assert len(collected) == len(set(collected)) == 120
    assert "Newest</a>" in html
    await browser.get("/runs?since=15m&tag=many&cursor=x", 400)
    assert listed(await browser.get("/runs?workflow=none")) == []
    for odd in ("page=x", "page=99", "status=odd", "since=never", "id=%00"):
        await browser.get(f"/runs?{odd}")


async def test_the_overview_counts_what_ended_and_failed(client: Client, browser: Browser) -> None:
    await ended(client, cents=1)
    await ended(client, fail="out of stock")
    text = " ".join(Markup(await browser.get("/?window=15m")).text.split())
    assert "2 ended in 15m" in text
    assert "50.0%1 failed of 2" in text
    assert "ValueError out of stock" in text
    rollups = await client.backend.get_rollups(15)
    for title, spread in (("A run, from submission to end", rollups.runs), ("A step's attempt", rollups.steps)):
        values = "".join(duration(spread.percentile(q)) for q in (0.5, 0.95, 0.99))
        assert spread.count > 0
        assert f"{title}{values}" in text


@pytest.mark.parametrize("grouping", GROUPINGS)
async def test_errors_are_grouped_with_occurrences(client: Client, browser: Browser, grouping: str) -> None:
    first, second = await ended(client, fail="out of stock"), await ended(client, fail="out of stock")
    html = await browser.get(f"/errors?grouping={grouping}")
    link = re.search(r'href="(/errors/[^"?]+)\?grouping', html)
    assert link
    assert "1 group" in html
    detail = await browser.get(f"{link[1]}?grouping={grouping}")
    assert first in detail
    assert second in detail
    assert "Traceback" in detail
    await browser.get("/errors/none", 400)


async def test_a_workflow_shows_its_steps_figures_and_what_changed(client: Client, browser: Browser) -> None:
    older = Plan.model_validate({**shop.plan.model_dump(), "steps": shop.plan.steps[:2]})
    await client.backend.register_plan(older)
    await client.backend.plan_number(older, 0)
    await ended(client, cents=1)
    html = await browser.get("/workflows/shop")
    text = Markup(html).text
    assert "Figures over the newest 1 runs" in text
    assert "From 1 to 2" in text
    assert "+step ship" in text
    assert "-step price" not in text
    assert "From 2 to 1" in Markup(await browser.get("/workflows/shop?from=2&to=1")).text
    await browser.get("/workflows/shop?from=9&to=1", 400)


async def test_queues_and_workers_tell_what_waits_and_runs(client: Client, browser: Browser) -> None:
    await client.submit(shop, {}, delay="1h", priority=7)
    claimed = await client.submit(shop, {})
    await client.backend.claim_step(claimed.id, "price", "w-by-hand")
    rows = re.findall(r"<tr><th scope=\"row\">shop.*?</tr>", await browser.get("/queues"), re.S)
    depths = [re.findall(r'<td class="right">(-?\d+)</td>', row) for row in rows]
    assert depths == [["7", "0", "1", "0", "0"], ["0", "0", "0", "1", "0"]], "level, due, delayed, running, idle"
    workers = await browser.get("/workers")
    assert "w-by-hand" in workers
    assert claimed.id in workers
    async with worker(client) as running:  # it is known from its first heartbeat on

        async def listed() -> bool:
            return running.id in await browser.get("/workers")

        await eventually(listed)


async def test_live_parts_are_sent_when_they_change(client: Client, open_app: Open) -> None:
    http = await open_app(WebOptions(poll=0.01, refresh=0.02))
    async with Stream(http.app, "/runs/live") as stream:  # type: ignore[attr-defined]
        assert "No run fits" in (await stream.next("part"))["data"]
        run = await client.submit(shop, {})
        assert run.id in (await stream.next("part"))["data"]


async def test_what_is_not_there_is_told_on_a_page(browser: Browser) -> None:
    assert "does not exist" in await browser.get("/runs/none", 404)
    assert "no such page" in await browser.get("/nothing", 404)
    await browser.get("/runs/none/live", 404)
    await browser.get("/static/none.js", 404)
