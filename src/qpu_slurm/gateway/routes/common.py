# SPDX-License-Identifier: Apache-2.0
"""What the routes share: whose request it is, and how bodies come in and go out."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import msgspec
import structlog
from aiohttp import web

from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.answers import ApiError, Cut, forbidden, invalid, too_large, unauthorized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from qpu_slurm.gateway.callers import Holder
    from qpu_slurm.gateway.ibm.upstream import Query

    Handler = Callable[[web.Request, Holder], Awaitable[web.StreamResponse]]
    T = TypeVar("T")

SMALL = 1 << 16
"""Bytes up to which a body is held in memory: no more than a connection's buffers."""

LISTING = 32 << 20
"""Bytes of an answer that has to be read to be filtered."""

_PATIENCE = 60.0
"""Seconds that a client may send nothing of a large body, or take nothing of a large answer."""

_SLOWEST = 1 << 14
"""Bytes a second that a client has to send or to take on the whole, else it keeps a connection for days."""

_LONGEST_PATH = 256

_TO_SERVICE = ("Accept", "Accept-Encoding", "IBM-API-Version", "X-Qx-Client-Application")
_TO_CLIENT = ("Content-Type", "Content-Encoding", "Retry-After", "Date", "ETag")

_NO_BODY = frozenset({204, 304})

_log = structlog.get_logger(__name__)


def held(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Serve only a job that holds the QPU, and not too many of its requests at once."""

    async def serve(request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("The request shows no token.")
        gateway = request.app[GATEWAY]
        holder = gateway.holders.of_token(token.strip())
        request["holder"] = holder
        begin(request, holder.lease.user_id)
        with gateway.requests.one(holder.lease.id):
            return await handler(request, holder)

    return serve


def client_headers(request: web.Request) -> dict[str, str]:
    """Return what a client says of itself and of what it takes; nothing that authorizes."""
    return {name: request.headers[name] for name in _TO_SERVICE if name in request.headers}


def query_of(request: web.Request) -> Query:
    """Return the URL's query as the client wrote it."""
    return list(request.query.items())


def begin(request: web.Request, user_id: int) -> None:
    """Note and log a request as soon as it is known whose it is: whatever comes of it, the log has it.

    Raises:
        ApiError: The user has too many under way.
    """
    gateway = request.app[GATEWAY]
    gateway.limiter.use(request.protocol, user_id, limited=user_id not in gateway.trusted)
    _log.info("request begins", **described(request))


def described(request: web.Request) -> dict[str, object]:
    """Return what the log says of a request: who asks for what; neither queries nor headers nor bodies."""
    fields: dict[str, object] = {
        "request": request["number"],
        "method": request.method,
        "path": request.path[:_LONGEST_PATH],
        "peer": request.remote,
    }
    holder = request.get("holder")
    if holder is not None:
        lease = holder.lease
        fields |= {"job_id": lease.job_id, "user_id": lease.user_id, "qpu": lease.qpu, "lease": lease.id}
    return fields | {name: request[name] for name in ("user_id", "why") if name in request}


# Bodies that come in.


class _Pace:
    """Follows how fast a client sends or takes a body."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._bytes = 0

    def passed(self, count: int) -> None:
        """Note that some more bytes have passed."""
        self._bytes += count

    def seconds_left(self) -> float:
        """Return how long the client has for the next piece."""
        slow = self._begin + _PATIENCE + self._bytes / _SLOWEST - time.monotonic()
        return max(0.0, min(_PATIENCE, slow))


def _never_came() -> ApiError:
    return ApiError(408, "The rest of the request never came.", "Send it again.")


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Read a body piece by piece, as long as the client goes on sending.

    Raises:
        ApiError: It does not, or too slowly.
    """
    pace = _Pace()
    while True:
        try:
            async with asyncio.timeout(pace.seconds_left()):
                piece = await request.content.readany()
        except TimeoutError:
            raise _never_came() from None
        if not piece:
            return
        pace.passed(len(piece))
        yield piece


async def small_body(request: web.Request, limit: int = SMALL) -> bytes:
    """Read a body that has to be small.

    Raises:
        ApiError: It is not, or does not come.
    """
    body = bytearray()
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(request.app[GATEWAY].settings.request_timeout):
            while piece := await request.content.readany():
                body += piece
                if len(body) > limit:
                    raise too_large(limit)
    except TimeoutError:
        raise _never_came() from None
    return bytes(body)


async def message(request: web.Request, type_: type[T]) -> T:
    """Read a small JSON body.

    Raises:
        ApiError: It is not what it should be.
    """
    try:
        return msgspec.json.decode(await small_body(request), type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid(str(error)) from None


# Answers that go out.


async def relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    """Hand the service's answer on, bit by bit if it is large.

    Raises:
        Cut: It broke off before its beginning was handed on.
    """
    headers = {name: answer.headers[name] for name in _TO_CLIENT if name in answer.headers}
    length = answer.content_length
    if answer.status in _NO_BODY:
        return web.Response(status=answer.status, headers=headers)
    if length is not None and length <= SMALL:
        return web.Response(status=answer.status, headers=headers, body=await read(answer, SMALL))
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = length
    await response.prepare(request)
    pace = _Pace()
    try:
        async for piece in answer.content.iter_any():
            async with asyncio.timeout(pace.seconds_left()):
                await response.write(piece)
            pace.passed(len(piece))
        await response.write_eof()
    except (aiohttp.ClientPayloadError, TimeoutError) as error:
        _log.warning("an answer broke off", path=request.path, why=str(error) or type(error).__name__)
        if request.transport is not None:
            request.transport.abort()
    return response


async def read(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read an answer of the service as a whole.

    Raises:
        Cut: It broke off.
        ApiError: It is larger than any that we know.
    """
    body = bytearray()
    try:
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > limit:
                raise ApiError(502, "The quantum service's answer is too large.", kind="upstream")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Cut(str(error)) from error
    return bytes(body)


async def read_as(answer: aiohttp.ClientResponse, type_: type[T], limit: int = LISTING) -> T:
    """Read an answer of the service that says what was asked for.

    Raises:
        ApiError: It says something else; the error says what the service's does.
        Cut: It broke off.
    """
    body = await read(answer, limit)
    if answer.status not in range(200, 300):
        raise passed_on(answer, body)
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ApiError(502, "The quantum service's answer makes no sense.", kind="upstream") from None


def passed_on(answer: aiohttp.ClientResponse, body: bytes) -> ApiError:
    """Return an error of the service's as one of ours, for a request that was not the client's own."""
    try:
        error: dict[str, Any] = msgspec.json.decode(body)["errors"][0]
        code, text = int(error["code"]), str(error["message"])
    except (msgspec.MsgspecError, UnicodeDecodeError, LookupError, TypeError, ValueError):
        code, text = 1000, "The quantum service answers with an error."
    retry_after = answer.headers.get("Retry-After", "")
    return ApiError(
        answer.status if answer.status >= web.HTTPBadRequest.status_code else 502,
        text,
        code=code,
        kind="upstream",
        retry_after=int(retry_after) if retry_after.isascii() and retry_after.isdigit() else None,
    )


def own(what: str, asked: str, *owned: str) -> None:
    """Make sure that a job asks for what is its own.

    Raises:
        ApiError: It does not; it is told the last of what is.
    """
    if asked not in owned:
        raise forbidden(f"The {what} {asked[:64]!r} is not this job's; its own is {owned[-1]!r}.")
