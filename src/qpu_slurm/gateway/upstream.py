# SPDX-License-Identifier: Apache-2.0
"""What stands behind a dialect: whatever answers the requests of a QPU's clients.

A dialect checks who asks, and whether the lease covers it. Then it sends the request to the QPU's upstream,
and hands the answer on. An upstream is the service itself over HTTP (`ibm.upstream`), or code that answers
with a provider what the service cannot (`ibm_system.upstream`). The dialect does not see which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from multidict import CIMultiDict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Any

    Body = bytes | AsyncIterator[bytes]
    Query = Sequence[tuple[str, str]]

READ = 60.0
"""Seconds to wait for the next piece of an answer."""

SUBMIT = 300.0
"""Seconds to wait for the answer to a submission, which the service checks first."""

_FIRST_ERROR = 400


class Content(Protocol):
    """The body of an answer."""

    def iter_any(self) -> AsyncIterator[bytes]:
        """Go through the body, in pieces of any size.

        Raises:
            aiohttp.ClientPayloadError: It broke off.
            TimeoutError: Likewise.
        """


class Answer(Protocol):
    """An answer, as dialects read it. `aiohttp.ClientResponse` is one, `WrittenAnswer` another."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, whose names may be asked for in upper or lower case."""

    @property
    def content_length(self) -> int | None:
        """The body's length in bytes; None where that is not known before its end."""

    @property
    def content(self) -> Content:
        """The body, which can be gone through once."""

    @property
    def ok(self) -> bool:
        """Whether it is no error."""

    def close(self) -> None:
        """Do without the rest of the body."""


class Upstream(Protocol):
    """Whatever answers a QPU's requests."""

    def send(
        self,
        method: str,
        *parts: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        once: bool = False,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request, and yield the answer, whose body is not read yet.

        Args:
            method: The HTTP method.
            parts: The parts of the path, unquoted.
            query: The URL's query.
            headers: More headers of a client.
            body: JSON. A stream cannot be sent again.
            once: Whether it must not take effect twice. Then a lost answer is no proof that it had no effect.

        Raises:
            ApiError: There is no answer.
            CutOffError: There is no answer, and the request may have taken effect.
        """


class WrittenAnswer:
    """An answer that the gateway writes itself.

    Args:
        status: The HTTP status.
        body: The body, or its pieces.
        content_type: The body's media type.
    """

    def __init__(
        self,
        status: int = 200,
        body: bytes | AsyncIterator[bytes] = b"",
        content_type: str = "application/json",
    ) -> None:
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict({"Content-Type": content_type} if body else {})
        self.content_length = len(body) if isinstance(body, bytes) else None
        self._body = body

    @classmethod
    def of(cls, data: Any, status: int = 200) -> WrittenAnswer:  # noqa: ANN401 - whatever JSON can be
        """Answer with JSON."""
        return cls(status, msgspec.json.encode(data))

    @property
    def ok(self) -> bool:
        """Whether it is no error."""
        return self.status < _FIRST_ERROR

    @property
    def content(self) -> Content:
        """The body."""
        return self

    async def iter_any(self) -> AsyncIterator[bytes]:
        """Go through the body."""
        if isinstance(self._body, bytes):
            if self._body:
                yield self._body
        else:
            async for piece in self._body:
                yield piece

    def close(self) -> None:
        """Do without the rest of the body."""
        self._body = b""
