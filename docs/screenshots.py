"""Takes a picture of every page, in light and dark, with real runs of a real worker: `make screenshots`.

    python docs/screenshots.py [--into docs/images]

Needs Chromium and its driver. The server, the worker and the browser end with the script.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from bench.harness import Server
from redisflow import Client, Retry, Skip, StepContext, Worker, Workflow
from redisflow.embedded.program import find_program
from redisflow.settings import Settings
from redisflow.web import WebOptions
from redisflow.web.serve import running

WIDTH, HEIGHT = 1280, 800
ROOT = Path(__file__).parent.parent
HIDE = """for (const one of document.querySelectorAll(".stack-trace, td .hint.mono"))
    one.textContent = one.textContent.replaceAll(arguments[0], "/srv/shop")"""


class Order(BaseModel):
    """What a customer wants."""

    customer: str = Field(description="Who pays", max_length=80)
    cents: int = Field(ge=1, description="Price in cents")
    express: bool = Field(False, description="Ship today")
    country: str = Field("DE", title="Country", json_schema_extra={"enum": ["DE", "FR", "US"]})
    note: str | None = None


first = Workflow("checkout", input=Order)


@first.step
async def price(order: Order) -> int:
    return order.cents


checkout = Workflow("checkout", input=Order, on_error="finish")


@checkout.step
async def validate(order: Order) -> dict[str, Any]:
    await asyncio.sleep(0.02)
    print(f"order of {order.customer} over {order.cents / 100:.2f}")
    return {"customer": order.customer, "cents": order.cents}


@checkout.step
async def reserve_stock(validate: dict[str, Any]) -> int:
    await asyncio.sleep(0.05)
    return 3


@checkout.step
async def check_fraud(validate: dict[str, Any]) -> float:
    await asyncio.sleep(0.11)
    print("score 0.02")
    return 0.02


@checkout.step(retry=Retry(attempts=3, delay="150ms"), timeout="10s")
async def charge_card(order: Order, check_fraud: float, reserve_stock: int, ctx: StepContext) -> str:
    await asyncio.sleep(0.08)
    if order.customer == "Mallory":
        raise PermissionError("card was declined")
    if ctx.attempt < 2:
        raise ConnectionError("payment gateway timed out after 80 ms")
    return f"ch_{order.cents}"


@checkout.step
async def gift_wrap(order: Order, validate: dict[str, Any]) -> str:
    raise Skip("no gift was asked for")


@checkout.step
def print_label(charge_card: str, gift_wrap: str = "plain") -> str:
    return f"label for {charge_card}, {gift_wrap}"


@checkout.step(export=True)
async def ship(order: Order, print_label: str) -> dict[str, Any]:
    await asyncio.sleep(60 if order.customer == "Slow" else 0.06)
    return {"tracking": "RF-0042", "label": print_label, "express": order.express}


report = Workflow("nightly-report", input=dict)


@report.step(isolate=True, export=True)
def collect(input: dict) -> int:
    return sum(n * n for n in range(300_000))


async def fill(client: Client) -> dict[str, str]:
    """Runs of every kind; the ids of those that get a picture."""
    await client.submit(checkout, Order(customer="Ada", cents=1999, note="first"), key="order-1", tags=["eu"])
    for number in range(60):
        customer = "Mallory" if number % 7 == 3 else ("Ada", "Grace", "Alan", "Edsger")[number % 4]
        await client.submit(
            checkout, Order(customer=customer, cents=500 + 37 * number), tags=["eu" if number % 2 else "us"]
        )
        await asyncio.sleep(0.03)
    for _ in range(3):
        await client.submit(report, {}, priority=-5, tags=["nightly"])
    done = await client.submit(
        checkout, Order(customer="Grace", cents=4999, express=True), key="order-99", tags=["eu", "vip"]
    )
    await done.result(timeout=60)
    for _ in range(6):
        await client.submit(report, {}, delay="1h", priority=5)
    waiting = await client.submit(report, {}, delay="2h")
    await client.cancel(waiting.id, "not needed tonight")
    live = [await client.submit(checkout, Order(customer="Slow", cents=100 * n)) for n in range(1, 5)]
    return {"run-live": live[0].id, "run": done.id}


def paths(runs: dict[str, str], fingerprint: str) -> dict[str, str]:
    """Name of a picture to the page on it."""
    return {
        **{name: f"/runs/{run_id}" for name, run_id in runs.items()},
        "overview": "/?window=15m", "runs": "/runs",
        "errors": "/errors?window=15m", "error": f"/errors/{fingerprint}?window=15m", "workflows": "/workflows",
        "workflow": "/workflows/checkout", "queues": "/queues", "workers": "/workers",
    }  # fmt: skip


def browser(dark: bool) -> webdriver.Chrome:
    """A headless Chromium in one of the two colour schemes."""
    options = Options()
    options.binary_location = shutil.which("chromium") or ""
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={WIDTH},{HEIGHT}",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [*scheme, {"name": "prefers-reduced-motion", "value": "reduce"}]}
    )
    return driver


def shoot(url: str, pages: dict[str, str], into: Path) -> None:
    """Every page in both schemes; the end of a long page is left out."""
    for dark in (False, True):
        driver = browser(dark)
        try:
            for name, path in pages.items():
                driver.get(url + path)
                driver.execute_script(HIDE, str(ROOT))
                height = min(1_400, driver.execute_script("return document.documentElement.scrollHeight"))
                driver.set_window_size(WIDTH, max(HEIGHT, height))
                driver.save_screenshot(str(into / f"{name}-{'dark' if dark else 'light'}.png"))
                driver.set_window_size(WIDTH, HEIGHT)
            if not dark:
                driver.set_window_size(500, 900)
                driver.get(url + pages["run"])
                driver.save_screenshot(str(into / "run-phone.png"))
        finally:
            driver.quit()


async def main() -> None:
    """Start everything, fill it, take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path(__file__).parent / "images")
    into = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    with Server(find_program()) as server:
        settings = Settings(url=server.url, namespace="shop", concurrency=24, drain_timeout="100ms")
        async with Client(settings=settings) as client:
            await client.backend.register_plan(first.plan)  # so that there are two versions to compare
            await client.backend.plan_number(first.plan, 0)
            async with Worker(client, [checkout, report]):
                runs = await fill(client)
                found = await client.backend.get_errors_list()
                async with running(client, WebOptions(), "127.0.0.1", 0) as ui:
                    await asyncio.to_thread(shoot, ui.url, paths(runs, found.errors[0].fingerprint), into)


if __name__ == "__main__":
    asyncio.run(main())
