"""Guard: who may ask, and how much; before a request's body is read, and while it is.

In: an ASGI application. Out: the same, behind these rules:

    on a loopback address      the Host is one of its names (against DNS rebinding)         400
    from a page                the page is this server's own: no CORS, and no link there    403
    where there is a token     it is in the Authorization header, but for page and health   401
    a body                     is one of forms with files, of limited size             415, 413
    all requests together      are limited in number and in bytes                           429
    a request's time           is limited                                             408, 504
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tlkit.errors import OptionError
from tlkit.options import ServeOptions
from tlkit.serve.metrics import Metrics
from tlkit.serve.problems import COME_AGAIN_S, refused, response

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Of every response."""

GUARDED = ("/api/", "/metrics", "/openapi.json")
"""What a token is for; the description names the classes."""

TAKING = ("/api/predict", "/api/explain")
"""What takes images."""

OWN_PAGE = ("same-origin", "none")
"""Values of Sec-Fetch-Site (W3C Fetch Metadata) of the server's own page, and of an address that
the user has typed. A browser sends no Origin with some requests of other sites' pages, but this."""

SHORTEST_TOKEN = 16

NAME = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:]+))(?::\d*)?\Z", re.IGNORECASE)
"""What stands in a Host: an IPv6 address or another name, and maybe a port."""

MB = 1_000_000


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str) -> None:
    """Raise `OptionError` where one is needed and missing, or is none."""
    make = "python -c 'import secrets; print(secrets.token_urlsafe())'"
    if not token and not is_loopback(host):
        raise OptionError(
            "an address that other machines reach wants a token",
            found=f"--host {host}, and no token",
            expected="TLKIT_TOKEN in the environment, or --token",
            do=f"export TLKIT_TOKEN=$({make}), or leave --host out",
        )
    if token and (len(token) < SHORTEST_TOKEN or re.search(r"[^\x21-\x7e]", token)):
        raise OptionError(
            "the token cannot be used",
            found=f"{len(token)} characters",
            expected=f"at least {SHORTEST_TOKEN} ASCII characters without a space",
            do=f"export TLKIT_TOKEN=$({make})",
        )


def guarded(
    app: ASGIApp,
    serving: ServeOptions,
    token: str,
    metrics: Metrics,
    *,
    paths: Collection[str] = (),
) -> ASGIApp:
    """The application behind the rules, its responses counted and with the headers.

    Responses are counted by `paths`, others together: a client could name any number of paths.
    """
    bodies = _Bodies(serving, metrics)

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            _must_be_welcome(scope, serving, token)
            with bodies.counted(scope, receive) as counted:
                await _in_time(app, scope, counted, answer, serving.timeout)
        except HTTPException as error:
            if not status:
                await response(error)(scope, receive, answer)
        finally:
            path = scope["path"] if scope["path"] in paths else "other"
            metrics.requests.labels(path, status or "none").inc()
            metrics.seconds.labels(path).observe(time.perf_counter() - began)

    return guard


def _must_be_welcome(scope: Scope, serving: ServeOptions, token: str) -> None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    name = NAME.match(host)
    if is_loopback(serving.host) and not (name and is_loopback(name[1] or name[2])):
        raise refused(
            HTTPStatus.BAD_REQUEST, "the Host of the request is another",
            found=host or "none", expected="localhost, or the loopback address",
            do="ask for the address that `tlkit serve` has printed",
        )  # fmt: skip
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != host:
        raise _from_another_site(f"Origin: {origin}", host)
    site = headers.get("sec-fetch-site", "none").strip().lower()
    if site not in OWN_PAGE:
        raise _from_another_site(f"Sec-Fetch-Site: {site}", host)
    if token and scope["path"].startswith(GUARDED):
        given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given[2].encode(), token.encode())
        if given[0].lower() != "bearer" or not right:
            raise refused(
                HTTPStatus.UNAUTHORIZED, "this server wants its token",
                found="another token" if given[2] else "none",
                expected="the header Authorization: Bearer TOKEN",
                do="send the token that the server was started with",
                **{"WWW-Authenticate": "Bearer"},
            )  # fmt: skip


def _from_another_site(sent: str, host: str) -> HTTPException:
    return refused(
        HTTPStatus.FORBIDDEN, "another site's page cannot ask here",
        found=sent, expected=f"a page of {host}, or a program",
        do=f"type {host or 'the address'} into the browser instead of following a link; a proxy "
        "before the server must pass the Host on",
    )  # fmt: skip


async def _in_time(app: ASGIApp, scope: Scope, body: _Body, send: Send, timeout: float) -> None:
    with anyio.move_on_after(timeout) as limit:
        await app(scope, body.receive, send)
    if limit.cancelled_caught:
        raise refused(
            HTTPStatus.GATEWAY_TIMEOUT if body.complete else HTTPStatus.REQUEST_TIMEOUT,
            "the request was given up",
            found=f"no answer after {timeout:g} s" if body.complete
            else f"a body that was not whole after {timeout:g} s",
            expected="to be done sooner",
            do="send fewer images at once, take a --tta with fewer views, or raise --timeout",
        )  # fmt: skip


class _Bodies:
    """The bodies of all requests that are under way."""

    def __init__(self, serving: ServeOptions, metrics: Metrics) -> None:
        self.serving = serving
        self.bytes = 0
        self._count = 0
        self._metrics = metrics

    @contextmanager
    def counted(self, scope: Scope, receive: Receive) -> Iterator[_Body]:
        """A request's body, which counts until it is answered. Raises `HTTPException`."""
        body = _Body(self, receive)
        if scope["method"] != "POST" or scope["path"] not in TAKING:
            yield body  # which nobody reads
            return
        body.must_be_fit(Headers(scope=scope))
        if self._count >= self.serving.most_waiting:
            raise come_again(f"{self._count} requests under way", f"{self.serving.most_waiting}")
        self._count += 1
        self._metrics.waiting.set(self._count)
        try:
            yield body
        finally:
            self._count -= 1
            self.bytes -= body.bytes
            self._metrics.waiting.set(self._count)


class _Body:
    """One body, counted while it comes."""

    def __init__(self, all_of_them: _Bodies, receive: Receive) -> None:
        self._all = all_of_them
        self._receive = receive
        self.bytes = 0
        self.complete = False

    def must_be_fit(self, headers: Headers) -> None:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise refused(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "images come as the files of a form",
                found=kind or "no Content-Type", expected="multipart/form-data",
                do="curl -F images=@photo.jpg, or files= in Python's requests",
            )  # fmt: skip
        length = headers.get("content-length", "")
        if length.isdecimal():
            self._must_be_small(int(length))

    async def receive(self) -> Message:
        """As the server gives it. Raises `HTTPException` where it becomes too much."""
        message = await self._receive()
        if message["type"] == "http.request":
            size = len(message.get("body", b""))
            self.bytes += size
            self._all.bytes += size
            self.complete = not message.get("more_body", False)
            self._must_be_small(self.bytes)
            most = self._all.serving.most_waiting_mb
            if self._all.bytes > most * MB:
                raise come_again(f"{self._all.bytes / MB:.0f} MB under way", f"{most:g} MB")
        return message

    def _must_be_small(self, size: int) -> None:
        most = self._all.serving.most_mb
        if size > most * MB:
            raise refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large",
                found=f"{size / MB:.1f} MB, or more", expected=f"at most {most:g} MB",
                do="send fewer or smaller images at once; --most-mb sets the limit",
            )  # fmt: skip


def come_again(found: str, most: str) -> HTTPException:
    """There is too much to do."""
    return refused(
        HTTPStatus.TOO_MANY_REQUESTS, "the server has enough to do",
        found=found, expected=f"at most {most}", do="try again in a moment",
        **{"Retry-After": str(COME_AGAIN_S)},
    )  # fmt: skip
