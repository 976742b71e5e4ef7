# SPDX-License-Identifier: Apache-2.0
"""What a client says of itself, and of the answer that it wants; nothing that authorizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

    from qpu_slurm.gateway.upstream import Query

LONGEST_WAIT: Final = 2
"""Seconds that a client may have its request kept."""

_TO_SERVICE: Final = ("Accept", "Accept-Encoding", "IBM-API-Version", "X-Qx-Client-Application")

_SHAPES_ANSWER: Final = ("Accept", "IBM-API-Version")


def client_headers(request: web.Request) -> dict[str, str]:
    """Return what a client says of itself and of what it takes."""
    return {name: request.headers[name] for name in _TO_SERVICE if name in request.headers}


def shaping_headers(request: web.Request) -> dict[str, str]:
    """Return those of a client's headers on which the content of the service's answer depends."""
    return {name: request.headers[name] for name in _SHAPES_ANSWER if name in request.headers}


def query_of(request: web.Request) -> Query:
    """Return the URL's query as the client wrote it."""
    return list(request.query.items())


def wants_new(request: web.Request) -> bool:
    """Return whether a client wants no copy of an earlier answer."""
    return "no-cache" in request.headers.get("Cache-Control", "").lower()


def wait_of(request: web.Request) -> float:
    """Return the seconds that a client offers to wait (`Prefer: wait=2`, RFC 7240); 0 if it does not."""
    for preference in request.headers.get("Prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait" and value.isascii() and value.isdigit():
            return float(min(int(value[:4]), LONGEST_WAIT))
    return 0.0
