"""The pages in a real browser: each page without an error, live while a real worker runs, an action, and all of it by keyboard."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from redisflow import Client
from redisflow.web import WebOptions
from redisflow.web.serve import Running, running
from tests.web.conftest import HOSTILE, ended, shop, worker

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs a browser: apt-get install chromium chromium-driver"
)
PATIENCE = 60
Do = Callable[..., Any]


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = CHROMIUM or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
async def ui(client: Client) -> AsyncIterator[Running]:
    async with running(client, WebOptions(poll=0.05, refresh=0.3), "127.0.0.1", 0) as served:
        yield served


@pytest.fixture
async def see(chrome: webdriver.Chrome, ui: Running) -> AsyncIterator[Do]:
    """`await see(path)`: open a page; afterwards nothing may have been blocked or raised."""

    async def open_page(path: str) -> None:
        await asyncio.to_thread(chrome.get, ui.url + path)

    yield open_page
    await asyncio.to_thread(chrome.get, "about:blank")  # leaves no stream open
    troubles = [
        entry for entry in chrome.get_log("browser") if entry["level"] == "SEVERE" and "favicon" not in entry["message"]
    ]  # type: ignore[no-untyped-call]
    assert troubles == []


async def until(chrome: webdriver.Chrome, condition: Callable[[webdriver.Chrome], Any]) -> Any:
    return await asyncio.to_thread(WebDriverWait(chrome, PATIENCE, 0.05).until, condition)


def text_in(selector: str, text: str) -> Callable[[webdriver.Chrome], bool]:
    def there(driver: webdriver.Chrome) -> bool:
        script = "return [...document.querySelectorAll(arguments[0])].some(e => e.textContent.includes(arguments[1]))"
        return bool(driver.execute_script(script, selector, text))  # type: ignore[no-untyped-call]

    return there


async def test_every_page_loads_clean_and_goes_live(client: Client, chrome: webdriver.Chrome, see: Do) -> None:
    done = await ended(client, name=HOSTILE)
    failed = await ended(client, fail=HOSTILE)
    (group, *_) = (await client.backend.get_errors_list()).errors
    for path, live in (("/", True), ("/runs", True), (f"/runs/{done}", True), (f"/runs/{failed}", True), ("/queues", True),
                       ("/workers", True), ("/errors", False), (f"/errors/{group.fingerprint}", False), ("/workflows", False),
                       ("/workflows/shop", False)):  # fmt: skip
        await see(path)
        assert "redisflow" in chrome.title
        if live:
            await until(chrome, text_in(".live-state", "live"))
        assert chrome.find_elements(By.CSS_SELECTOR, "main img") == []
        width = chrome.execute_script("return document.documentElement.scrollWidth")  # type: ignore[no-untyped-call]
        assert width <= 1280, f"{path} is wider than the window"


async def test_a_run_is_watched_from_start_to_end_over_a_restart_of_the_server(
    client: Client, chrome: webdriver.Chrome
) -> None:
    run = await client.submit(shop, {"name": "ada"})
    options = WebOptions(poll=0.05, refresh=0.3)
    async with running(client, options, "127.0.0.1", 0) as first:
        await asyncio.to_thread(chrome.get, f"{first.url}/runs/{run.id}")
        await until(chrome, text_in(".live-state", "live"))
        assert text_in(".node.s-scheduled", "price")(chrome)
        async with worker(client):
            await until(chrome, text_in(".node.s-completed", "ship"))
            await until(chrome, text_in("#log .line", "price of ada"))
            await until(chrome, text_in("#events td", "WorkflowCompleted"))
    await until(chrome, text_in(".live-state", "reconnecting"))
    lines = [{"timestamp": 1, "stream": "stdout", "message": f"while away {n}", "attempt_number": 1} for n in range(20)]
    await client.backend.save_step_logs("shop", run.id, "price", lines)
    async with running(client, options, "127.0.0.1", int(first.url.rpartition(":")[2])):
        await until(chrome, text_in("#log .line", "while away 19"))
        await asyncio.to_thread(chrome.execute_script, "window.stop()")
    shown = chrome.execute_script("return [...document.querySelectorAll('#log .text')].map(e => e.textContent)")  # type: ignore[no-untyped-call]
    assert shown == ["price of ada", *(f"while away {n}" for n in range(20))], "no gap and no double"
    events = chrome.execute_script(
        "return [...document.querySelectorAll('#events a')].map(e => e.href.split('at=')[1])"
    )  # type: ignore[no-untyped-call]
    wires = await client.backend.load_wire_events(run.id)
    assert events == [wire["eventId"] for wire in wires if wire["type"] != "LogEntry"]
    await asyncio.to_thread(chrome.get, "about:blank")
    chrome.get_log("browser")  # type: ignore[no-untyped-call]  # that the server was away was told


async def test_a_run_is_cancelled_and_rerun_with_the_mouse(client: Client, chrome: webdriver.Chrome, see: Do) -> None:
    run = await client.submit(shop, {"cents": 1})
    await see(f"/runs/{run.id}")
    button = chrome.find_element(By.CSS_SELECTOR, "form[action$='/cancel'] button")
    await asyncio.to_thread(button.click)
    await asyncio.to_thread(lambda: chrome.switch_to.alert.accept())
    await until(chrome, text_in(".flash", "Cancelled."))
    assert (await client.status(run.id)).status == "cancelled"
    field = chrome.find_element(By.CSS_SELECTOR, "#rerun textarea")
    await asyncio.to_thread(chrome.execute_script, "arguments[0].value = '{\"cents\": 5}'", field)
    await asyncio.to_thread(chrome.find_element(By.CSS_SELECTOR, "#rerun button").click)
    await until(chrome, text_in(".flash", "A new run that repeats price"))
    made = chrome.current_url.rpartition("/")[2]
    assert (await client.status(made)).input == '{"cents":5}'


async def test_a_selection_survives_updates_and_is_cancelled_by_keyboard_alone(
    client: Client, chrome: webdriver.Chrome, see: Do
) -> None:
    first = await client.submit(shop, {})
    await see("/runs")
    await until(chrome, text_in(".live-state", "live"))

    async def press(*keys: str) -> None:
        await asyncio.to_thread(ActionChains(chrome).send_keys(*keys).perform)

    async def tab_to(selector: str) -> None:
        for _ in range(60):
            await press(Keys.TAB)
            if chrome.execute_script("return document.activeElement.matches(arguments[0])", selector):  # type: ignore[no-untyped-call]
                return
        raise AssertionError(f"{selector} cannot be reached by keyboard")

    await tab_to("a.skip")
    await press(Keys.ENTER)
    await tab_to(f"input[name=run][value='{first.id}']")
    await press(Keys.SPACE)
    await until(chrome, text_in("#picked", "1 selected"))
    second = await client.submit(shop, {})
    await until(chrome, text_in("tbody td", second.id))
    focused = chrome.execute_script("return document.activeElement.value")  # type: ignore[no-untyped-call]
    assert focused == first.id, "an update takes neither focus nor ticks away"
    assert text_in("#picked", "1 selected")(chrome)
    await asyncio.to_thread(
        ActionChains(chrome).key_down(Keys.SHIFT).send_keys(Keys.TAB * 3).key_up(Keys.SHIFT).perform
    )
    await press(Keys.ENTER)
    await asyncio.to_thread(lambda: chrome.switch_to.alert.accept())
    await until(chrome, text_in(".flash", "Cancelled 1 of 1 runs."))
    assert [(await client.status(run.id)).status for run in (first, second)] == ["cancelled", "pending"]
