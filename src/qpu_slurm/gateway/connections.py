# SPDX-License-Identifier: Apache-2.0
"""The limits of the gateway's connections, and which one is closed when there are too many.

A connection is *in use* while it carries a request whose caller is known. All others can be closed at any
time: those that are idle between two requests, those that never sent one, and those whose request arrives
slowly. When the gateway or one address reaches its limit, the connection that has been out of use for longest
is closed to make room.

If all connections are in use, new ones get a place that is reserved for hooks and steps. Such a connection
carries one request, signed with MUNGE, and nothing else.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from contextlib import contextmanager
from fcntl import ioctl
from termios import FIONREAD
from typing import TYPE_CHECKING
from weakref import WeakSet

import structlog

from qpu_slurm.gateway.limits import busy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from qpu_slurm.config import GatewayConfig
    from qpu_slurm.gateway.metrics import Metrics

PIECE = 1 << 14
"""Bytes that are read from a connection at once, in one turn of the event loop."""

_SILENCE = 60_000
"""Milliseconds in which a client has to acknowledge some of an answer."""

_LAST_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
)
"""What is sent as a connection is ended between two requests. A client that sends none at that moment takes
it for the end of the connection. One that does gets an answer, and it is true: the request was not done."""

_WARN, _CALM = 0.8, 0.7
"""Shares of a limit. The log has a warning from the first on, and the next one only after the second."""

_ROOMY = 0.5
"""Below this share of a limit, a waiting request takes no place from others."""

_log = structlog.get_logger(__name__)


class ConnectionLimiter:
    """Bounds the connections: all of them, those of an address, and those that a user has in use.

    Args:
        settings: The limits.
        metrics: Counts the connections.

    Attributes:
        draining: Whether the gateway is about to end, so that each answer is its connection's last.
        ended: How many connections were ended between two requests.
    """

    def __init__(self, settings: GatewayConfig, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open: dict[object, Connection] = {}
        # The one that has been out of use for longest comes first.
        self._free: dict[Connection, None] = {}
        self._reserved: set[Connection] = set()
        self._of_address: Counter[str] = Counter()
        self._of_user: Counter[int] = Counter()
        self._warned: set[str] = set()
        self._arriving: WeakSet[Connection] = WeakSet()
        self.draining = False
        self.ended = 0
        self.use_settings(settings)
        # asyncio fills it and hands it over at once, so one serves all connections.
        self.buffer = memoryview(bytearray(PIECE))

    def use_settings(self, settings: GatewayConfig) -> None:
        """Apply other limits; existing connections stay."""
        self._settings = settings
        self._metrics.connections_limit.set(settings.max_connections)

    def expect(self, connection: Connection) -> None:
        """Count an accepted connection, whose TLS handshake may follow."""
        self._arriving.add(connection)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    @property
    def arriving(self) -> int:
        """How many accepted connections are not admitted yet."""
        return len(self._arriving)

    def admit(self, connection: Connection) -> bool:
        """Admit a new connection, and close another for it if need be; return whether it may stay."""
        settings, address = self._settings, connection.address
        self._arriving.discard(connection)
        if self._of_address[address] >= settings.max_connections_per_address:
            room = self._close_one(address)
            why = "max_connections_per_address"
        elif len(self._open) - len(self._reserved) >= settings.max_connections:
            room = self._close_one()
            why = "max_connections"
        else:
            room, why = True, ""
        if not room:
            if len(self._reserved) >= settings.reserved_connections and not self._close_one(reserved=True):
                self._metrics.limits.labels(why).inc()
                _log.warning("connection refused", why=why, peer=address)
                return False
            self._reserved.add(connection)
        self._open[connection.handler] = connection
        self._free[connection] = None
        self._of_address[address] += 1
        self._note()
        self._warn(
            "max_connections_per_address",
            self._of_address[address],
            settings.max_connections_per_address,
            address,
        )
        return True

    def forget(self, connection: Connection) -> None:
        """Remove a closed connection."""
        if self._open.pop(connection.handler, None) is None:
            return
        self._give_back(connection)
        self._free.pop(connection, None)
        self._reserved.discard(connection)
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]
        self._note()

    def begin(self, handler: object) -> None:
        """Note that a connection carries a request, whose user is not known yet."""
        connection = self._open.get(handler)
        if connection is not None:
            connection.answering = True

    def use(self, handler: object, user_id: int, *, limited: bool) -> None:
        """Note the user of a connection's request.

        Args:
            handler: The connection's.
            user_id: The user.
            limited: Whether the limit for users applies. It does not apply to Slurm.

        Raises:
            ApiError: The user has as many in use as a user may have.
        """
        connection = self._open.get(handler)
        if connection is None or connection.user_id is not None:
            return
        most = self._settings.max_connections_per_user
        if limited and self._of_user[user_id] >= most:
            raise busy(
                f"User {user_id} has {most} requests under way already.",
                "Wait for them.",
                1,
                "max_connections_per_user",
            )
        connection.user_id = user_id
        self._of_user[user_id] += 1
        self._free.pop(connection, None)
        if limited:
            self._warn("max_connections_per_user", self._of_user[user_id], most, str(user_id))

    def done(self, handler: object) -> None:
        """Note that a connection's request is answered."""
        connection = self._open.get(handler)
        if connection is not None:
            connection.answered()
            self._give_back(connection)
            self._free.pop(connection, None)
            self._free[connection] = None

    def last_answer(self, handler: object) -> bool:
        """Return whether an answer is the last one of its connection, which it has to announce."""
        return self.draining or self.kept_for_slurm(handler)

    def end_silent(self, since: float) -> int:
        """End the connections on which nothing has come since a time (monotonic); return how many stay."""
        for connection in list(self._free):
            if connection.silent(since):
                connection.end()
                self.ended += 1
                self.forget(connection)
        return len(self._open)

    def may_wait(self, handler: object) -> bool:
        """Return whether there is room for connections whose requests wait for something to happen."""
        connection, settings = self._open.get(handler), self._settings
        return (
            connection is not None
            and not self.draining
            and len(self._open) < _ROOMY * settings.max_connections
            and self._of_address[connection.address] < _ROOMY * settings.max_connections_per_address
        )

    @contextmanager
    def waiting(self, handler: object) -> Iterator[None]:
        """Exempt a connection from the user's limit while its request waits."""
        connection = self._open.get(handler)
        user_id = None if connection is None else connection.user_id
        if connection is None or user_id is None:
            yield
            return
        self._give_back(connection)
        try:
            yield
        finally:
            if handler in self._open:
                connection.user_id = user_id
                self._of_user[user_id] += 1

    def kept_for_slurm(self, handler: object) -> bool:
        """Return whether a connection has a place that is reserved for hooks and steps."""
        connection = self._open.get(handler)
        return connection is not None and connection in self._reserved

    def _close_one(self, address: str | None = None, *, reserved: bool = False) -> bool:
        """Close the connection that has been out of use for longest; return whether there is one."""
        for connection in self._free:
            if (address in {None, connection.address}) and (connection in self._reserved) == reserved:
                self._metrics.connections_closed.inc()
                connection.abort()
                self.forget(connection)
                return True
        return False

    def _give_back(self, connection: Connection) -> None:
        user_id, connection.user_id = connection.user_id, None
        if user_id is not None:
            self._of_user[user_id] -= 1
            if not self._of_user[user_id]:
                del self._of_user[user_id]

    def _note(self) -> None:
        taken = len(self._open) - len(self._reserved)
        self._metrics.connections.labels("open").set(taken)
        self._metrics.connections.labels("reserved").set(len(self._reserved))
        self._warn("max_connections", taken, self._settings.max_connections)

    def _warn(self, limit: str, count: int, most: int, whose: str = "") -> None:
        """Log a warning when a limit is near."""
        key = f"{limit} {whose}"
        if key in self._warned:
            if count <= _CALM * most:
                self._warned.discard(key)
        elif count >= _WARN * most:
            self._warned.add(key)
            _log.warning("connections run short", limit=limit, of=whose or None, open=count, most=most)


class Connection(asyncio.BufferedProtocol):
    """One connection: passes incoming data to aiohttp, in pieces of a bounded size.

    Args:
        limiter: Decides whether it may stay.
        handler: aiohttp's part of it.

    Attributes:
        handler: As above.
        address: The client's address.
        user_id: The user of its request; None while that is not known.
        answering: Whether it carries a request.
    """

    def __init__(self, limiter: ConnectionLimiter, handler: web.RequestHandler) -> None:
        self.handler = handler
        self.address = ""
        self.user_id: int | None = None
        self.answering = False
        self._limiter = limiter
        self._transport: asyncio.Transport | None = None
        self._asked = self._ended = False
        self._changed = time.monotonic()
        limiter.expect(self)

    def answered(self) -> None:
        """Note that its request is answered."""
        self.answering = self._asked = False
        self._changed = time.monotonic()

    def silent(self, since: float) -> bool:
        """Return whether it carries no request, and none began or ended since a time (monotonic)."""
        if self.answering or self._changed > since or self._transport is None:
            return False
        descriptor = self._transport.get_extra_info("socket").fileno()
        return descriptor < 0 or not any(ioctl(descriptor, FIONREAD, bytes(4)))

    def end(self) -> None:
        """End it between two requests. A request that is on its way is answered with 503."""
        if self._transport is None:
            return
        self._ended = True
        self._transport.write(_LAST_ANSWER)
        if self._transport.can_write_eof():
            self._transport.write_eof()  # incoming data is still read: closing would reset the answer
        else:
            self._transport.close()  # TLS does the same by itself

    def abort(self) -> None:
        """Close it at once."""
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or close it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else ""
        if not self._limiter.admit(self):
            transport.abort()
            return
        connected = transport.get_extra_info("socket")
        # aiohttp waits forever for a client that takes no answer; the kernel does not.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE)
        self.handler.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Return the buffer for the next bytes."""
        return self._limiter.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on the received bytes."""
        if self._ended:
            return
        if not self._asked:
            self._asked, self._changed = True, time.monotonic()
        self.handler.data_received(bytes(self._limiter.buffer[:nbytes]))

    def eof_received(self) -> None:
        """Pass on that the client has sent all."""
        self.handler.eof_received()

    def pause_writing(self) -> None:
        """Pass on that the client reads too slowly."""
        self.handler.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that it reads again."""
        self.handler.resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Remove the connection."""
        self._limiter.forget(self)
        self.handler.connection_lost(exc)
