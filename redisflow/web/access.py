"""Who may come in: a file of tokens, one user a line, with what each may do.

The same token signs a person in on the login page and a program in with `Authorization: Bearer`. Only digests are kept in memory,
and all of them are compared each time, so that the time taken tells nothing. Sessions are signed with a key made from the file,
so they outlive a restart and end when the file changes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from redisflow.model.errors import UsageError

SHORTEST = 16
FORM = "NAME read|write TOKEN"


@dataclass(frozen=True)
class User:
    """Somebody who has shown who they are; `can_write` allows every action, else only looking."""

    name: str
    can_write: bool


LOCAL = User("local", True)
"""Whoever reaches a server that asks for no token."""


@dataclass(frozen=True)
class Tokens:
    """The users of a token file by the digest of their token."""

    users: dict[bytes, User]
    session_key: str

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """Read a token file; empty lines and those with # are passed by.

        Raises:
            UsageError: it cannot be read, or a line is not of the form; the message names the line, never the token.
        """
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--token-file {path} cannot be read: {error}") from None
        users: dict[bytes, User] = {}
        for number, line in enumerate(text.splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 3 or words[1] not in ("read", "write"):
                raise UsageError(f"--token-file {path}, line {number}: write `{FORM}`")
            if len(words[2]) < SHORTEST:
                raise UsageError(
                    f"--token-file {path}, line {number}: a token has at least {SHORTEST} characters; make one with "
                    "`openssl rand -hex 24`"
                )
            users[_digest(words[2])] = User(words[0], words[1] == "write")
        if not users:
            raise UsageError(f"--token-file {path} names nobody: write a line `{FORM}` for each user")
        return cls(users, hashlib.sha256(b"session:" + text.encode()).hexdigest())

    def find(self, token: str) -> User | None:
        """The user of a token, or None."""
        shown, found = _digest(token), None
        for digest, user in self.users.items():
            if hmac.compare_digest(digest, shown):
                found = user
        return found

    def named(self, name: str) -> User | None:
        """A user by name, or None where they are no longer in the file; of several lines the weaker counts."""
        users = [user for user in self.users.values() if user.name == name]
        return min(users, key=lambda user: user.can_write, default=None)


def session_key(tokens: Tokens | None) -> str:
    """Key that sessions are signed with; without tokens one of this process."""
    return tokens.session_key if tokens else secrets.token_hex(32)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
