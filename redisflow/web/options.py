"""How the application is started: who may do what, and how often live parts are read anew."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address, ip_network
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
        behind_proxy: proxies whose X-Forwarded-Proto and X-Forwarded-For count: addresses or networks, with commas; None: nobody's.
    """

    tokens: Tokens | None = None
    read_only: bool = False
    session_age: timedelta = field(default=timedelta(hours=12))
    refresh: float = 2.0
    poll: float = 0.25
    behind_proxy: str | None = None


def check_proxies(text: str | None, token_file: Path | None) -> None:
    """Refuse proxies that are no addresses, and any where nobody has to show a token.

    Raises:
        UsageError: says so, and what to do.
    """
    if text is None:
        return
    for part in text.split(","):
        try:
            ip_network(part.strip())
        except ValueError:
            raise UsageError(
                f"--behind-proxy {part.strip()!r} is not allowed: an address such as 127.0.0.1 or a network such as 10.0.0.0/8"
            ) from None
    if token_file is None:
        raise UsageError(
            "--behind-proxy lets others in: give --token-file FILE with a line `NAME read|write TOKEN` for each user"
        )


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
