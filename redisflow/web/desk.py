"""What every handler works with: the client, the options, the templates, and what is shared by all viewers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

from redisflow.backend.redis import RedisBackend
from redisflow.client import Client

if TYPE_CHECKING:
    from jinja2 import Environment

    from redisflow.web.boards import Boards
    from redisflow.web.hub import Hub
    from redisflow.web.options import WebOptions


class Refusal(Exception):
    """A request that is answered with a page of an error: its status, and one sentence that says what to do."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True)
class Desk:
    """The application's parts."""

    client: Client
    options: WebOptions
    templates: Environment
    hub: Hub
    boards: Boards

    @property
    def backend(self) -> RedisBackend:
        """The client's backend."""
        return self.client.backend


def desk_of(request: Request) -> Desk:
    """The desk of the application that handles a request."""
    desk: Desk = request.app.state.desk
    return desk
