"""Routes made of the table: who asks, what is asked, and the answer as JSON.

A program shows `Authorization: Bearer TOKEN`. A server without tokens serves this machine alone, and takes writes only as JSON
and from no other page: a form of a foreign page can send neither that type nor our origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from redisflow.model.errors import InvalidArgument, InvalidInput, RedisflowError
from redisflow.model.events import WireModel
from redisflow.settings import parse_duration
from redisflow.web.access import LOCAL, User
from redisflow.web.api.endpoints import ENDPOINTS, Call, Endpoint, Param
from redisflow.web.api.openapi import document
from redisflow.web.api.problems import ApiProblem, problem, problem_of
from redisflow.web.desk import Desk, desk_of
from redisflow.web.forms import read_json
from redisflow.web.security import may_write

ENVELOPE: Final = 65_536
"""Bytes that a body may have beside its payload."""


def api_routes() -> list[BaseRoute]:
    """All routes of the API, the document and a problem for every other path."""
    routes: list[BaseRoute] = [
        Route(row.path, _serve(row), methods=[row.method], name=row.name) for row in ENDPOINTS
    ]  # fmt: skip
    return [Route("/openapi.json", _document), *routes, Route("/{path:path}", _unknown, methods=_METHODS)]


_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def _document(_: Request) -> Response:
    return JSONResponse(document())


async def _unknown(request: Request) -> Response:
    return problem(404, "not-found", f"there is no {request.method} {request.url.path}: see /api/v1/openapi.json")


def _serve(row: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        desk = desk_of(request)
        try:
            user = _user(desk, request, row)
            query = _query(row, request)
            body = await _body(desk, row, request) if row.body else None
            return _response(await row.handler(Call(desk, user, request, query, body)))
        except (ApiProblem, RedisflowError) as error:
            return problem_of(error)

    return serve


def _user(desk: Desk, request: Request, row: Endpoint) -> User:
    tokens = desk.options.tokens
    if tokens is None:
        user = LOCAL
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise ApiProblem(403, "forbidden", "a page of another origin may not use this server")
    else:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        found = tokens.find(token.strip()) if kind.lower() == "bearer" else None
        if found is None:
            raise ApiProblem(401, "unauthorized", "send `Authorization: Bearer TOKEN` with a token of the token file")
        user = found
    if row.writes and not may_write(desk, user):
        raise ApiProblem(403, "forbidden", "this needs the scope `write`, and a server that is not read-only")
    return user


def _query(row: Endpoint, request: Request) -> dict[str, Any]:
    """The query's values, read as the table says.

    Raises:
        InvalidArgument: a parameter is unknown or has the wrong form.
    """
    known = {param.name: param for param in row.params if param.place == "query"}
    found: dict[str, Any] = {}
    for name in request.query_params:
        param = known.get(name)
        if param is None:
            raise InvalidArgument(name, request.query_params[name], f"a parameter among {', '.join(known) or 'none'}")
        found[name] = _value(param, request.query_params.getlist(name))
    return found


def _value(param: Param, texts: list[str]) -> Any:
    text = texts[-1]
    if param.kind == "strings":
        return [part for given in texts for part in given.split(",") if part]
    if param.kind == "integer":
        if not (text.isascii() and text.isdecimal() and len(text) < 17):
            raise InvalidArgument(param.name, text, "a whole number from 0 on")
        return int(text)
    if param.kind == "boolean":
        if text.lower() not in ("true", "false", "1", "0"):
            raise InvalidArgument(param.name, text, "true or false")
        return text.lower() in ("true", "1")
    if param.kind == "duration":
        try:
            return parse_duration(text)
        except ValueError as error:
            raise InvalidArgument(param.name, text, str(error)) from None
    return text


async def _body(desk: Desk, row: Endpoint, request: Request) -> BaseModel:
    """The body, checked against the model of the row.

    Raises:
        ApiProblem: it is too large, or not JSON.
        InvalidInput: it does not fit.
    """
    limit = desk.client.settings.max_payload_bytes + ENVELOPE
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise ApiProblem(413, "too-large", f"the body is over {limit:,} bytes")
        chunks.append(chunk)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiProblem(415, "unsupported-media-type", "send the body as `Content-Type: application/json`")
    assert row.body is not None
    try:
        value = read_json(b"".join(chunks).decode()) if size else {}
        return row.body.model_validate(value)
    except ValidationError as error:
        issues = [
            (".".join(str(part) for part in found["loc"]) or "$", found["msg"])
            for found in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        raise InvalidInput("the body", issues) from None
    except ValueError as error:
        raise InvalidInput("the body", [("$", f"is not JSON: {error}")]) from None


def _response(answer: Any) -> Response:
    if isinstance(answer, Response):
        return answer
    status, model = answer if isinstance(answer, tuple) else (200, answer)
    body = model.to_wire() if isinstance(model, WireModel) else model.model_dump(mode="json", by_alias=True)
    return JSONResponse(body, status)
