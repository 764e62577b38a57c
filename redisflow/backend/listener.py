"""Sharded pub/sub for wake-ups: one connection a node, callbacks by channel.

Messages are hints, never the truth: after a reconnect every subscriber is called with None, which says "look again".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import hiredis

from redisflow.backend.channel import Channel, open_channel, pack_command
from redisflow.backend.connection import Server
from redisflow.backend.location import FAULTS, Address
from redisflow.backend.patience import Backoff

log = logging.getLogger("redisflow.backend")
Callback = Callable[[bytes | None], None]


class Listener:
    """Subscriptions of one process.

    Args:
        server: where.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._callbacks: dict[str, list[Callback]] = {}
        self._connections: dict[Address, Channel] = {}
        self._address_of: dict[str, Address] = {}
        self._confirmations: dict[str, asyncio.Future[None]] = {}
        self._mending: asyncio.Task[None] | None = None
        self._locks: dict[Address | str, asyncio.Lock] = {}  # of a node's connection, and of a channel's subscription
        self._closed = False

    async def subscribe(self, channel: str, callback: Callback) -> None:
        """Call `callback` for each message of a channel; returns once the subscription stands (or is being mended)."""
        callbacks = self._callbacks.setdefault(channel, [])
        callbacks.append(callback)
        if len(callbacks) == 1:
            try:
                await self._attach(channel)
            except FAULTS:
                self.mend()
            else:
                self._look_again(channel)  # who relies on this subscription may have looked before it stood

    async def unsubscribe(self, channel: str, callback: Callback) -> None:
        """Stop calling `callback`."""
        callbacks = self._callbacks.get(channel, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks and self._callbacks.pop(channel, None) is not None:
            self._locks.pop(channel, None)
            address = self._address_of.pop(channel, None)
            connection = self._connections.get(address) if address else None
            if connection and not connection.closed:
                connection.send(pack_command("SUNSUBSCRIBE", channel), _ignore)

    async def drop(self, channel: str) -> None:
        """Stop calling anybody for a channel."""
        for callback in tuple(self._callbacks.get(channel, ())):
            await self.unsubscribe(channel, callback)

    async def close(self) -> None:
        """Close all connections."""
        self._closed = True
        if self._mending:
            self._mending.cancel()
            await asyncio.gather(self._mending, return_exceptions=True)
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self._callbacks.clear()

    async def _attach(self, channel: str) -> None:
        async with self._locks.setdefault(channel, asyncio.Lock()):
            address = await self._server.address_of(channel)
            connection = await self._connection_to(address)
            self._address_of[channel] = address
            confirmed = asyncio.get_running_loop().create_future()
            self._confirmations[channel] = confirmed
            connection.send(pack_command("SSUBSCRIBE", channel), _ignore)
            try:
                async with asyncio.timeout(5):
                    await confirmed
            except TimeoutError as error:
                raise ConnectionError(f"no answer to SSUBSCRIBE {channel}") from error

    async def _connection_to(self, address: Address) -> Channel:
        async with self._locks.setdefault(address, asyncio.Lock()):
            connection = self._connections.get(address)
            if connection is None or connection.closed:
                connection = await open_channel(address, self._on_lost, on_push=self._deliver)
                self._connections[address] = connection
            return connection

    def _deliver(self, push: Any) -> None:
        if isinstance(push, hiredis.ReplyError):
            if str(push).startswith("MOVED"):
                self.mend()
            return
        kind, channel = push[0], push[1].decode() if push[1] else ""
        if kind == b"smessage":
            for callback in tuple(self._callbacks.get(channel, ())):
                callback(push[2])
        elif kind == b"ssubscribe":
            confirmed = self._confirmations.pop(channel, None)
            if confirmed and not confirmed.done():
                confirmed.set_result(None)
        elif kind == b"sunsubscribe" and channel in self._callbacks:
            self.mend()  # the slot moved away

    def _on_lost(self, _: Exception | None) -> None:
        for channel, confirmed in self._confirmations.items():
            if self._is_dead(channel) and not confirmed.done():
                confirmed.set_exception(ConnectionError("the connection was lost"))
        self.mend()

    def _is_dead(self, channel: str) -> bool:
        address = self._address_of.get(channel)
        connection = None if address is None else self._connections.get(address)
        return connection is None or connection.closed

    def mend(self) -> None:
        """See to it, in the background, that every subscription stands at the node that holds its channel now."""
        if not self._closed and (self._mending is None or self._mending.done()):
            self._mending = asyncio.get_running_loop().create_task(self._reattach())

    async def _reattach(self) -> None:
        backoff = Backoff(10**18)
        while True:
            await asyncio.sleep(backoff.next())
            try:
                await self._server.refresh_topology()
            except FAULTS as error:
                log.debug("subscriptions: %s; trying again", error)
                continue
            channels = tuple(self._callbacks)
            attached = await asyncio.gather(*map(self._attach, channels), return_exceptions=True)
            for channel, failure in zip(channels, attached, strict=True):
                if failure is None:
                    self._look_again(channel)
                elif not isinstance(failure, FAULTS):
                    raise failure
            if any(attached):
                continue
            if any(self._is_dead(channel) for channel in self._callbacks):
                continue  # one broke while another was mended
            return

    def _look_again(self, channel: str) -> None:
        for callback in tuple(self._callbacks.get(channel, ())):
            callback(None)


def _ignore(_: Any) -> None:
    """Answers of subscriptions come as pushes."""
