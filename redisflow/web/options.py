"""How the application is started: who may do what, and how often live parts are read anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from redisflow.model.errors import UsageError
from redisflow.web.access import Tokens


@dataclass(frozen=True)
class WebOptions:
    """What `redisflow ui` was told.

    Attributes:
        tokens: who may come in; None: everyone who reaches the address, as `local`.
        read_only: no action, by nobody.
        session_age: how long a browser stays signed in.
        refresh: seconds between two looks at what a live part shows.
        poll: seconds between two looks at the streams of runs that somebody watches.
    """

    tokens: Tokens | None = None
    read_only: bool = False
    session_age: timedelta = field(default=timedelta(hours=12))
    refresh: float = 2.0
    poll: float = 0.25


def check_address(host: str, token_file: Path | None) -> None:
    """Refuse an address that others reach while nobody has to show a token.

    Raises:
        UsageError: says so, and what to do.
    """
    if token_file is None and not is_loopback(host):
        raise UsageError(
            f"--host {host} can be reached from other machines: give --token-file FILE with a line `NAME read|write TOKEN` "
            "for each user, or leave --host out to serve this machine alone"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
