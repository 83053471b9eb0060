"""Listen: the server of an application, and its end.

Ctrl-C and SIGTERM end it once what is under way was answered; a second Ctrl-C at once.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from tlkit.errors import OptionError
from tlkit.options import ServeOptions
from tlkit.serve.app import Service, app_of
from tlkit.serve.connections import (
    BACKLOG,
    ConnectionLimits,
    bounded_connections,
    max_connections,
)


def bound(serving: ServeOptions) -> socket.socket:
    """A socket that listens where it was asked for. Raises `OptionError`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            serving.host, serving.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:
        raise OptionError(
            "nothing can listen there",
            found=f"--host {serving.host} --port {serving.port}: {error}",
            expected="an address of this machine, and a port that is free",
            do="name another, such as --port 0, which takes one that is free"
            if getattr(error, "errno", None) != errno.EACCES
            else "name a --port from 1024: those below are the system's",
        ) from error


def address_of(place: socket.socket) -> str:
    """http://127.0.0.1:8000"""
    host, port = place.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(served: Service, limits: ConnectionLimits | None = None) -> uvicorn.Server:
    """Make the server, with limits for what the process may open where none are given."""
    limits = limits or ConnectionLimits(max_connections=max_connections())
    config = uvicorn.Config(
        app_of(served),
        http=bounded_connections(limits),
        ws="none",
        backlog=BACKLOG,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(served.serving.timeout) + 1,
    )
    return uvicorn.Server(config)


def listen(served: Service, place: socket.socket) -> bool:
    """Answer until a signal comes. Whether what was under way was then waited for."""
    server = server_of(served)
    try:
        with _signals():
            server.run(sockets=[place])
    finally:
        served.desk.close(wait=not server.force_exit)
    return not server.force_exit


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Uvicorn raises them once more when it has ended: then they have done what they were for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def done(number: int, frame: Any) -> None:
        pass

    before = {one: signal.signal(one, done) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
