"""Errors as problem details (RFC 9457): one JSON form, with the status that fits each error of redisflow."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from redisflow.model.errors import (
    InvalidArgument,
    InvalidInput,
    PayloadTooLarge,
    RedisflowError,
    RunExists,
    RunNotFound,
    ServerUnavailable,
    StepNotFound,
    TransitionRefused,
    UsageError,
    WorkflowNotFound,
)

LONGEST: Final = 1_000
"""Characters of a message."""
MOST_ISSUES: Final = 50


class ApiProblem(Exception):
    """A request that is answered with a problem of the API's own."""

    def __init__(self, status: int, kind: str, detail: str) -> None:
        self.status = status
        self.kind = kind
        super().__init__(detail)


TYPES: Final = {
    "unauthorized": "A token is missing or unknown",
    "forbidden": "The token or the server does not allow it",
    "not-found": "There is no such thing",
    "invalid": "The request is wrong",
    "too-large": "The request is too large",
    "unsupported-media-type": "The body is not JSON",
    "conflict": "The state does not allow it",
    "unavailable": "Redis cannot be reached",
    "failed": "It failed",
}
"""Short name, the last part of `type`, to title."""

_STATUSES: Final[tuple[tuple[type[RedisflowError], int, str], ...]] = (
    (PayloadTooLarge, 413, "too-large"),
    (RunNotFound, 404, "not-found"),
    (WorkflowNotFound, 404, "not-found"),
    (StepNotFound, 404, "not-found"),
    (RunExists, 409, "conflict"),
    (TransitionRefused, 409, "conflict"),
    (InvalidInput, 422, "invalid"),
    (InvalidArgument, 422, "invalid"),
    (UsageError, 422, "invalid"),
    (ServerUnavailable, 503, "unavailable"),
    (RedisflowError, 500, "failed"),
)


def problem(status: int, kind: str, detail: str, **more: Any) -> JSONResponse:
    """A problem as a response."""
    headers = {"www-authenticate": 'Bearer realm="redisflow"'} if status == 401 else {}
    body = {
        "type": f"urn:redisflow:problem:{kind}",
        "title": TYPES[kind],
        "status": status,
        "detail": _cut(detail),
        **more,
    }
    return JSONResponse(body, status, headers, "application/problem+json")


def _cut(text: str) -> str:
    """A message without the whole payload that some messages quote."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def problem_of(error: Exception) -> JSONResponse:
    """The problem that an error is told as."""
    if isinstance(error, ApiProblem):
        return problem(error.status, error.kind, str(error))
    status, kind = next((status, kind) for known, status, kind in _STATUSES if isinstance(error, known))
    if isinstance(error, InvalidInput):
        issues = [{"path": path, "message": _cut(message)} for path, message in error.problems[:MOST_ISSUES]]
        return problem(status, kind, str(error), errors=issues)
    return problem(status, kind, str(error))
