"""Connections: how many may be open at once, and how long a request may take to arrive.

In: limits. Out: the protocol class that uvicorn speaks on each connection.
A client that opens connections and never sends a whole request (Slowloris) would use up the
process's file descriptors, after which nobody else can connect. uvicorn has no limit for either.
Next door: guard.py, which limits requests from the end of their head on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

BACKLOG = 64
"""Connections that the system queues. The event loop may accept all of them before the first is
counted, so that many descriptors stay in reserve; a client that finds no room tries again."""

MAX_CONNECTIONS = 1000
"""However many descriptors there are."""

HEAD_TIMEOUT_S = 10.0
"""Seconds until the head of a request has to be there, from the connection's start or from the
response before it. guard.py limits the time from there on."""

DESCRIPTORS_IN_USE = 64
"""Of a server without connections, where the system does not list them."""


@dataclass(kw_only=True)
class ConnectionLimits:
    """The limits of one server, and its connections that have not sent a whole request."""

    max_connections: int
    head_timeout_s: float = HEAD_TIMEOUT_S
    connections: set[BoundedConnection] = field(default_factory=set)
    """Those that are open and are not being closed."""
    unfinished: dict[BoundedConnection, None] = field(default_factory=dict)
    """Those of them that have not sent a whole request, the longest waiting first."""


class BoundedConnection(H11Protocol):
    """A connection that is closed where it takes too long to send the head of a request.

    Where there are too many connections, the oldest that has not sent a whole request is closed;
    where each of them has, the newest is.
    """

    limits: ClassVar[ConnectionLimits]
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, and close one if there are too many."""
        super().connection_made(transport)
        self.limits.connections.add(self)
        self._await_request()
        if len(self.limits.connections) > self.limits.max_connections:
            next(iter(self.limits.unfinished)).close_at_once()

    def data_received(self, data: bytes) -> None:
        """Take in what arrived, and note whether that was a whole head, or a whole request."""
        super().data_received(data)
        if self._is_answering():
            self._stop_timer()
            if not self.cycle.more_body:
                self.limits.unfinished.pop(self, None)

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it is there already."""
        super().on_response_complete()
        if not self._is_answering() and self in self.limits.connections:
            self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def close_at_once(self) -> None:
        """Close without waiting for a client that may never read what it was sent."""
        self._forget()
        self.transport.abort()

    def _forget(self) -> None:
        self._stop_timer()
        self.limits.connections.discard(self)
        self.limits.unfinished.pop(self, None)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self._stop_timer()
        self.limits.unfinished.pop(self, None)
        self.limits.unfinished[self] = None
        self._head_timer = self.loop.call_later(self.limits.head_timeout_s, self.close_at_once)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def bounded_connections(limits: ConnectionLimits) -> type[BoundedConnection]:
    """Return the protocol class of one server with these limits."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})


def max_connections() -> int:
    """Return how many connections the process's file descriptors allow.

    Half of those that are free: requests keep their larger files on the disk.
    """
    free = _descriptor_limit() - _descriptors_in_use() - BACKLOG
    return max(1, min(MAX_CONNECTIONS, free // 2))


def _descriptor_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 4 * MAX_CONNECTIONS
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4 * MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else soft


def _descriptors_in_use() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/dev/fd"))
    return DESCRIPTORS_IN_USE
