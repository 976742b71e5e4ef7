# SPDX-License-Identifier: Apache-2.0
"""What the routes of IBM's dialect share: they find the caller, read the request, and read the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from qpu_slurm.gateway.answers import ApiError, forbidden, unauthorized
from qpu_slurm.gateway.gateway import GATEWAY
from qpu_slurm.gateway.ibm.answers import invalid, passed_on
from qpu_slurm.gateway.ibm.dialect import IBM
from qpu_slurm.gateway.relay import read
from qpu_slurm.gateway.requests import begin, small_body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aiohttp import web

    from qpu_slurm.gateway.callers import Caller
    from qpu_slurm.gateway.upstream import Answer

    Handler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]

T = TypeVar("T")

LISTING = 32 << 20
"""Largest answer that is read to be filtered, in bytes."""


def held(handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Restrict a route to jobs that hold the QPU, and to a number of requests at once."""

    async def serve(request: web.Request) -> web.StreamResponse:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise unauthorized("The request has no token.")
        gateway = request.app[GATEWAY]
        caller = request.app[IBM].caller(token.strip())
        request["caller"] = caller
        begin(request, caller.lease.user_id)
        with gateway.requests.one(caller.lease.id):
            return await handler(request, caller)

    return serve


async def message(request: web.Request, type_: type[T]) -> T:
    """Read a small JSON body.

    Raises:
        ApiError: It does not have the expected form.
    """
    try:
        return msgspec.json.decode(await small_body(request), type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise invalid(str(error)) from None


async def read_as(answer: Answer, type_: type[T], limit: int = LISTING) -> T:
    """Read a successful answer of the service.

    Raises:
        ApiError: It is an error, which becomes the client's answer.
        CutOffError: It broke off.
    """
    return decoded(answer.status, answer.headers, await read(answer, limit), type_)


def decoded(status: int, headers: Mapping[str, str], body: bytes, type_: type[T]) -> T:
    """Read an answer of the service that is in memory; see `read_as`.

    Raises:
        ApiError: As in `read_as`.
    """
    if status not in range(200, 300):
        raise passed_on(status, headers, body)
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ApiError(502, "The quantum service's answer cannot be understood.", kind="upstream") from None


def own(what: str, asked: str, *owned: str) -> None:
    """Check that a value in a request is one of the job's own.

    Raises:
        ApiError: It is not. The error names the last of the job's own.
    """
    if asked not in owned:
        raise forbidden(
            f"The {what} {asked[:64]!r} is not this job's; its own is {owned[-1]!r}.",
            f"Use {owned[-1]!r}, or submit a job for the other one.",
        )
