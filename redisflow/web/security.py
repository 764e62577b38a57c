"""What stands between a browser and the pages: headers, hosts, sessions and the CSRF token of every form.

The Content-Security-Policy allows our own files and nothing else: no inline script or style, no other host, no frame around a
page. A server without tokens answers only under names of this machine, so that a page elsewhere cannot reach it by pointing its
own name here.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from redisflow.web.access import LOCAL, User
from redisflow.web.desk import Desk, Refusal, desk_of

Handler = Callable[[Request], Awaitable[Response]]
Action = Callable[[Request, FormData], Awaitable[Response]]

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
MAX_FORM: Final = 4 * 1024 * 1024


class SecurityHeaders:
    """Puts the headers on every response, keeps pages and data out of caches, and cookies of https off http."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
                if scope["scheme"] == "https":
                    message["headers"] = [_secured(*header) for header in message["headers"]]
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _secured(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return (name, value + b"; secure") if name.lower() == b"set-cookie" else (name, value)


class LocalNames:
    """Refuses requests under a foreign name; used where no token is asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] == "http" and not is_local_name(Headers(scope=scope).get("host", "")):
            text = "This server answers only as localhost: open http://localhost, or start it with --token-file.\n"
            await PlainTextResponse(text, 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_local_name(host: str) -> bool:
    """Whether a Host header names this machine, with any port."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    return name.lower() in LOOPBACK_NAMES


def current_user(request: Request) -> User | None:
    """Who the session belongs to; None where nobody has signed in."""
    tokens = desk_of(request).options.tokens
    if tokens is None:
        return LOCAL
    name = request.session.get("user")
    return tokens.named(name) if isinstance(name, str) else None


def may_write(desk: Desk, user: User) -> bool:
    """Whether the user may act here."""
    return user.can_write and not desk.options.read_only


def csrf_token(request: Request) -> str:
    """The token that each form of this session carries."""
    token = request.session.get("csrf")
    if not isinstance(token, str):
        token = request.session["csrf"] = secrets.token_urlsafe(24)
    return token


def page(handler: Handler) -> Handler:
    """A page that a signed-in user may see; others are sent to the login."""

    async def guarded(request: Request) -> Response:
        user = current_user(request)
        if user is None:
            if request.headers.get("accept") == "text/event-stream":
                return PlainTextResponse("sign in first\n", 401)
            path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/login?next={quote(path, safe='')}", 303)
        request.state.user = user
        return await handler(request)

    return guarded


def action(handler: Action) -> Handler:
    """A form that changes something: signed in, allowed to write, and sent from a page of ours."""

    async def acting(request: Request) -> Response:
        if not may_write(desk_of(request), request.state.user):
            raise Refusal(403, "This is a view to look at: your token, or the server, is read-only.")
        form = await read_form(request)
        return await handler(request, form)

    return page(acting)


async def read_form(request: Request) -> FormData:
    """The form of a POST, once its CSRF token is that of the session.

    Raises:
        Refusal: it is too large, or has another token or none.
    """
    if int(request.headers.get("content-length") or MAX_FORM + 1) > MAX_FORM:
        raise Refusal(413, f"A form is at most {MAX_FORM // 1024**2} MiB long, and says its length.")
    form = await request.form(max_files=0, max_fields=2_000, max_part_size=MAX_FORM)
    expected, sent = request.session.get("csrf"), form.get("csrf")
    if not isinstance(expected, str) or not isinstance(sent, str) or not hmac.compare_digest(
        expected.encode(), sent.encode()
    ):  # fmt: skip
        raise Refusal(
            403, "This form is out of date (its CSRF token is not that of your session): load the page again."
        )
    return form
