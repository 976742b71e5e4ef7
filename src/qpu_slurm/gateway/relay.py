# SPDX-License-Identifier: Apache-2.0
"""Passes a service's answers on to clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import aiohttp
import structlog
from aiohttp import web

from qpu_slurm.gateway.answers import ApiError, CutOffError
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.requests import SMALL, Pace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qpu_slurm.gateway.upstream import Answer

_TO_CLIENT = ("Content-Type", "Content-Encoding", "Retry-After", "Date", "ETag")

_NO_BODY = frozenset({204, 304})
_OK = 200

_log = structlog.get_logger(__name__)


class Copy(NamedTuple):
    """A complete answer of the service, for a client."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status == _OK

    def response(self, more: Mapping[str, str] | None = None) -> web.Response:
        """Return it for a client, with further headers."""
        return web.Response(status=self.status, headers=self.headers | dict(more or {}), body=self.body)


async def copy(answer: Answer, limit: int) -> Copy:
    """Read an answer of the service as a whole.

    Raises:
        CutOffError: It broke off.
        ApiError: It is too large.
    """
    headers = {name: answer.headers[name] for name in _TO_CLIENT if name in answer.headers}
    return Copy(answer.status, headers, await read(answer, limit))


async def relay(
    request: web.Request, answer: Answer, more: Mapping[str, str] | None = None
) -> web.StreamResponse:
    """Pass the service's answer on; a large one in pieces.

    Args:
        request: The client's.
        answer: The service's.
        more: Further headers.

    Raises:
        CutOffError: It broke off before its beginning was handed on.
    """
    headers = {name: answer.headers[name] for name in _TO_CLIENT if name in answer.headers} | dict(more or {})
    length = answer.content_length
    if answer.status in _NO_BODY:
        return web.Response(status=answer.status, headers=headers)
    if length is not None and length <= SMALL:
        return web.Response(status=answer.status, headers=headers, body=await read(answer, SMALL))
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_length = length
    if request.app[GATEWAY].limiter.last_answer(request.protocol):
        response.force_close()  # its headers go out now
    await response.prepare(request)
    pace = Pace()
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


async def read(answer: Answer, limit: int) -> bytes:
    """Read an answer of the service as a whole.

    Raises:
        CutOffError: It broke off.
        ApiError: It is larger than any known one.
    """
    body = bytearray()
    try:
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > limit:
                raise ApiError(502, "The quantum service's answer is too large.", kind="upstream")
    except (aiohttp.ClientError, TimeoutError) as error:
        raise CutOffError(str(error)) from error
    return bytes(body)
