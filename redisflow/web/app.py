"""The application: its routes, its middleware, and what lives as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from redisflow.client import Client
from redisflow.model.errors import RedisflowError, RunNotFound, ServerUnavailable, UsageError, WorkflowNotFound
from redisflow.web import actions, login
from redisflow.web.access import session_key
from redisflow.web.api.routes import api_routes
from redisflow.web.boards import Boards
from redisflow.web.desk import Desk, Refusal
from redisflow.web.hub import Hub
from redisflow.web.options import WebOptions
from redisflow.web.pages import errors, overview, queues, run, runs, workers, workflows
from redisflow.web.render import make_environment, respond
from redisflow.web.security import LocalNames, SecurityHeaders, action, page

STATIC = Path(__file__).parent / "static"


def create_app(client: Client, options: WebOptions | None = None) -> Starlette:
    """The dashboard and the API over an open client, as an ASGI application.

    Args:
        client: open; the caller closes it.
        options: see `WebOptions`.
    """
    given = options or WebOptions()
    desk = Desk(client, given, make_environment(), Hub(client.backend, given.poll), Boards())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        reader = asyncio.create_task(desk.hub.run())
        try:
            yield
        finally:
            reader.cancel()
            await close_tails(desk)
            await asyncio.gather(reader, return_exceptions=True)

    middleware = [Middleware(SecurityHeaders)]
    if given.behind_proxy is not None:
        middleware.insert(0, Middleware(ProxyHeadersMiddleware, trusted_hosts=given.behind_proxy))
    if given.tokens is None:
        middleware.append(Middleware(LocalNames))
    middleware.append(
        Middleware(
            SessionMiddleware, secret_key=session_key(given.tokens), session_cookie="redisflow", same_site="lax",
            max_age=int(given.session_age.total_seconds()),
        )
    )  # fmt: skip
    app = Starlette(
        routes=_routes(), middleware=middleware, lifespan=lifespan,
        exception_handlers={
            Refusal: _refused, RedisflowError: _failed, HTTPException: _http,
        },
    )  # fmt: skip
    app.state.desk = desk
    return app


async def close_tails(desk: Desk) -> None:
    """End every stream, so that a server need not wait for its viewers."""
    desk.hub.close()
    await desk.boards.close()


def _routes() -> list[BaseRoute]:
    return [
        Route("/", page(overview.overview)),
        Route("/live", page(overview.overview_live)),
        Route("/runs", page(runs.runs)),
        Route("/runs/live", page(runs.runs_live)),
        Route("/runs/act", action(actions.bulk), methods=["POST"]),
        Route("/runs/{run_id}", page(run.run)),
        Route("/runs/{run_id}/live", page(run.run_live)),
        Route("/runs/{run_id}/events.jsonl", page(run.download_events)),
        Route("/runs/{run_id}/{what:str}.json", page(run.download_payload)),
        Route("/runs/{run_id}/cancel", action(actions.cancel), methods=["POST"]),
        Route("/runs/{run_id}/retry", action(actions.retry), methods=["POST"]),
        Route("/runs/{run_id}/rerun", action(actions.rerun), methods=["POST"]),
        Route("/errors", page(errors.errors)),
        Route("/errors/{fingerprint}", page(errors.error)),
        Route("/errors/{fingerprint}/retry", action(actions.retry_group), methods=["POST"]),
        Route("/workflows", page(workflows.workflows)),
        Route("/workflows/{slug}", page(workflows.workflow)),
        Route("/workflows/{slug}/submit", action(actions.submit), methods=["POST"]),
        Route("/queues", page(queues.queues)),
        Route("/queues/live", page(queues.queues_live)),
        Route("/workers", page(workers.workers)),
        Route("/workers/live", page(workers.workers_live)),
        Route("/login", login.login, methods=["GET", "POST"]),
        Route("/logout", login.logout, methods=["POST"]),
        Mount("/api/v1", routes=api_routes()),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refusal) else 400
    return respond(request, "problem.html", status, title=_TITLES.get(status, "Refused"), message=str(error))


async def _failed(request: Request, error: Exception) -> Response:
    """What redisflow refuses is told on a page as the command line would tell it."""
    if isinstance(error, RunNotFound | WorkflowNotFound):
        status = 404
    elif isinstance(error, ServerUnavailable):
        status = 503
    else:
        status = 400 if isinstance(error, UsageError) else 409
    return respond(request, "problem.html", status, title=_TITLES.get(status, "Refused"), message=str(error))


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    text = "There is no such page." if status == 404 else "This address does not take that."
    return respond(request, "problem.html", status, title=_TITLES.get(status, "Refused"), message=text)


_TITLES = {403: "Not allowed", 404: "Not found", 409: "Not possible now", 413: "Too large", 503: "Redis is away"}
