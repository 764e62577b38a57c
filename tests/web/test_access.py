"""Who may come in and what a browser is told: tokens, scopes, read-only, headers, hosts."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from redisflow import Client
from redisflow.model.errors import UsageError
from redisflow.web import WebOptions
from redisflow.web.access import Tokens
from redisflow.web.options import check_address, check_proxies
from redisflow.web.security import is_local_name
from tests.web.conftest import READER, WRITER, Browser, Open, shop


async def sign_in(http: httpx.AsyncClient, token: str, target: str = "/") -> httpx.Response:
    page = await http.get("/login", params={"next": target})
    csrf = re.search(r'name="csrf" value="([^"]+)"', page.text)
    assert csrf
    return await http.post("/login", data={"csrf": csrf[1], "token": token, "next": target})


async def test_every_page_asks_for_a_token(open_app: Open, tokens: Tokens) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    for path in (
        "/",
        "/runs",
        "/runs/x",
        "/errors",
        "/workflows",
        "/queues",
        "/workers",
        "/live",
        "/runs/x/events.jsonl",
    ):
        answer = await http.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/login?next=")
    for path in ("/runs/x/cancel", "/runs/act", "/workflows/x/submit"):
        assert (await http.post(path)).headers["location"].startswith("/login"), path
    assert (await http.get("/live", headers={"accept": "text/event-stream"})).status_code == 401


async def test_a_token_signs_in_and_out(open_app: Open, tokens: Tokens) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    assert (await sign_in(http, "x" * 20)).status_code == 401
    answer = await sign_in(http, WRITER, "/runs?page=1")
    assert answer.headers["location"] == "/runs?page=1"
    assert "Sign out wanda" in (await Browser(http).get("/"))
    assert WRITER not in str(http.cookies)
    await Browser(http).post("/logout", "/")
    assert (await http.get("/")).status_code == 303


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "x"]
)
async def test_the_login_leads_nowhere_else(open_app: Open, tokens: Tokens, target: str) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    assert (await sign_in(http, WRITER, target)).headers["location"] == "/"


async def test_a_reader_looks_and_does_nothing(client: Client, open_app: Open, tokens: Tokens) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    await sign_in(http, READER)
    run = await client.submit(shop, {})
    browser = Browser(http)
    html = await browser.get(f"/runs/{run.id}")
    assert "read-only" in html
    assert f'action="/runs/{run.id}/cancel"' not in html
    await browser.post(f"/runs/{run.id}/cancel", f"/runs/{run.id}", 403)
    assert (await client.status(run.id)).status == "pending"


async def test_a_read_only_server_takes_no_action(client: Client, open_app: Open) -> None:
    http = await open_app(WebOptions(read_only=True))
    run = await client.submit(shop, {})
    html = await Browser(http).get("/runs")
    assert "read-only" in html
    await Browser(http).post("/runs/act", "/runs", 403, do="cancel", run=[run.id])
    assert (await http.post(f"/api/v1/runs/{run.id}/cancel", json={})).status_code == 403
    assert (await client.status(run.id)).status == "pending"


async def test_a_cookie_of_another_key_is_nobodys(open_app: Open, tokens: Tokens, tmp_path: Path) -> None:
    http = await open_app(WebOptions(tokens=tokens))
    await sign_in(http, WRITER)
    (tmp_path / "other").write_text(f"wanda write {WRITER}x\n")
    other = await open_app(WebOptions(tokens=Tokens.load(tmp_path / "other")), cookies=http.cookies)
    assert (await other.get("/")).status_code == 303
    again = await open_app(WebOptions(tokens=tokens), cookies=http.cookies)
    assert (await again.get("/")).status_code == 200, "a session outlives a restart"


async def test_headers_forbid_all_but_our_own_files(http: httpx.AsyncClient) -> None:
    cookie = (await http.get("/")).headers["set-cookie"]
    for path in ("/", "/static/app.js", "/api/v1/runs", "/nothing"):
        headers = (await http.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    html = (await http.get("/runs")).text
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! src=\"/static/)", html)
    assert not re.search(r'(?:src|href|action)="(?:https?:)?//', html), "no other host is asked for anything"
    assert "samesite=lax" in cookie.lower()
    assert "httponly" in cookie.lower()


async def test_without_tokens_only_names_of_this_machine_are_answered(http: httpx.AsyncClient) -> None:
    assert (await http.get("/", headers={"host": "rebound.example"})).status_code == 421
    assert (await http.get("/api/v1/runs", headers={"host": "rebound.example:8420"})).status_code == 421
    assert all(map(is_local_name, ("localhost", "localhost:8420", "127.0.0.1:1", "[::1]:8420", "[::1]")))
    assert not any(map(is_local_name, ("", "localhost.evil.example", "127.0.0.1.nip.io:80", "evil:127.0.0.1")))


def test_an_open_address_needs_tokens() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.com"):
        with pytest.raises(UsageError, match="--token-file"):
            check_address(host, None)
        check_address(host, Path("tokens"))
    for host in ("127.0.0.1", "127.0.0.9", "::1", "localhost"):
        check_address(host, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "names nobody"),
        ("ann write", "line 1"),
        ("# x\nann admin " + "x" * 20, "line 2"),
        ("ann write short", "at least 16"),
    ],
)
def test_a_wrong_token_file_is_told_by_line_and_never_by_token(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(UsageError, match=told) as refused:
        Tokens.load(path)
    assert "ann write short" not in str(refused.value)


def test_a_missing_token_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Tokens.load(tmp_path / "none")


FORWARDED = {"x-forwarded-proto": "https"}


async def test_cookies_of_https_stay_on_https(open_app: Open, tokens: Tokens) -> None:
    behind = WebOptions(tokens=tokens, behind_proxy="127.0.0.0/8")
    for options, headers, secure in (
        (behind, FORWARDED, True),
        (behind, {}, False),
        (WebOptions(tokens=tokens), FORWARDED, False),  # anyone can send the header
        (WebOptions(tokens=tokens, behind_proxy="10.0.0.1"), FORWARDED, False),
    ):
        http = await open_app(options, headers=headers)
        cookie = (await http.get("/login")).headers["set-cookie"]
        assert "samesite=lax" in cookie.lower()
        assert ("secure" in cookie.lower().replace(" ", "").split(";")) is secure
    direct = await open_app(WebOptions(tokens=tokens))
    direct.base_url = "https://localhost"
    assert "; secure" in (await direct.get("/login")).headers["set-cookie"]


@pytest.mark.parametrize("text", ["yes", "*", "127.0.0.1,x", ""])
def test_proxies_are_addresses(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--behind-proxy"):
        check_proxies(text, tmp_path)


def test_a_proxy_needs_tokens(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--token-file"):
        check_proxies("127.0.0.1", None)
    check_proxies("127.0.0.1, 10.0.0.0/8", tmp_path)
    check_proxies(None, None)
