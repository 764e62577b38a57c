"""Signing in and out with a token of the token file."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from redisflow.web.desk import desk_of
from redisflow.web.render import respond
from redisflow.web.security import read_form


async def login(request: Request) -> Response:
    """The form for a token, and what becomes of it."""
    tokens = desk_of(request).options.tokens
    target = _inside(request.query_params.get("next", "/"))
    if tokens is None:
        return RedirectResponse("/", 303)
    if request.method == "GET":
        return respond(request, "login.html", target=target, problem=None)
    form = await read_form(request)
    user = tokens.find(str(form.get("token", "")).strip())
    if user is None:
        return respond(request, "login.html", 401, target=target, problem="There is no such token.")
    request.session.clear()  # a new session, so that nobody shares one from before
    request.session["user"] = user.name
    return RedirectResponse(_inside(str(form.get("next", "/"))), 303)


async def logout(request: Request) -> Response:
    """End the session."""
    await read_form(request)
    request.session.clear()
    return RedirectResponse("/login", 303)


def _inside(target: str) -> str:
    """A path of ours; another address becomes the overview."""
    parts = urlsplit(target)
    safe = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if safe and "\\" not in target and target.isprintable() else "/"
