# SPDX-License-Identifier: Apache-2.0
"""HTTP requests that are repeated as long as that is safe and somebody waits.

| what happened | a request that may be repeated | one that must take effect once |
|---|---|---|
| no connection, 429 | repeated | repeated: it did not take effect |
| 401, the first time | repeated with a new token | repeated with a new token |
| 408, 5xx; answer lost, cut short or malformed | repeated | `AnswerLostError`: the caller looks it up |
| any other 3xx or 4xx | an error | an error |

urllib3's own retries know neither a deadline over several tries nor what to look up, so they are off; its
reading of Retry-After is used. Between two tries there is a pause that doubles, with jitter, or what the
service asks for.

What requests would add to urllib3 is none of what is needed here, and takes as long again: at the start of
every hook and of every task_runner, and with each request. What is in the environment is heeded as it does.
"""

from __future__ import annotations

import itertools
import logging
import os
import ssl
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote as quote_url
from urllib.parse import urlencode

import msgspec
from urllib3 import PoolManager
from urllib3 import exceptions as errors
from urllib3.util import Retry, Timeout

from qpu_slurm.errors import AnswerLostError, RefusedError, ServiceError, ThrottledError, UnavailableError
from qpu_slurm.providers.ibm.answers import error_of, quote
from qpu_slurm.system.backoff import backoff
from qpu_slurm.system.certificates import authorities, refusal
from qpu_slurm.system.deadline import NEVER, Deadline
from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from qpu_slurm.providers.base import Pieces
    from qpu_slurm.system.secret import Secret

    Body = bytes | Pieces

T = TypeVar("T")

CLIENT = f"qpu_slurm/{__version__}"

_CONNECTIONS = 32
"""How many are kept, where threads share a provider."""

_SUCCESS = range(200, 300)
_UNAUTHORIZED = 401
_TOO_MANY = 429
_NOT_DONE = (None, _TOO_MANY)
"""The statuses of an `UnavailableError` that say that a request had no effect; None: it was not sent."""

_log = logging.getLogger(__name__)
_retry_after = Retry()
_NEVER = Retry(False)  # noqa: FBT003 - as urllib3 has it: errors come as they are


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long is waited, in seconds.

    Attributes:
        connect: For a connection.
        read: For the next piece of an answer.
        call: For one call in all, its repetitions included, where the provider has no earlier deadline.
        submit: For the answer to a submission, which the service checks first.
        settle: For a request whose answer was lost to show up, before it is taken for not done.
    """

    connect: float = 5.0
    read: float = 30.0
    call: float = 60.0
    submit: float = 300.0
    settle: float = 1.5


class LostError(AnswerLostError):
    """A request that must take effect once may have done so; `pause` is the seconds until another try."""

    def __init__(self, error: ServiceError, pause: float) -> None:
        super().__init__(error.message, status=error.status, code=error.code, advice=error.advice)
        self.pause = pause


class Credential(Protocol):
    """What a request is authorized by."""

    def bearer(self, *, deadline: Deadline) -> Secret:
        """Return a token that is valid now; see `Http.call` for `deadline` and for what is raised."""

    def renew(self, refused: Secret) -> None:
        """Forget a token that was refused."""


class _Request(NamedTuple):
    method: str
    path: str
    params: Mapping[str, str | list[str]] | None
    body: Body | None
    read: float | None
    headers: Mapping[str, str] | None


class Http:
    """Requests to one base URL, over connections that are kept.

    Args:
        base: What every path is appended to.
        headers: What every request carries.
        patience: How long is waited.
        credential: What requests are authorized by; None for none.
        deadline: When everything gives up at the latest.
        beside: Another one: where both go to the same server, they share connections.

    Attributes:
        server: The base's scheme, nothing, and the host with its port.
        pool: The connections.
    """

    def __init__(
        self,
        base: str,
        headers: Mapping[str, str],
        *,
        patience: Patience,
        credential: Credential | None = None,
        deadline: Deadline = NEVER,
        beside: Http | None = None,
    ) -> None:
        self._base = base.rstrip("/")
        self._patience = patience
        self._credential = credential
        self._deadline = deadline
        self.server = self._base.split("/", 3)[:3]
        self.pool: PoolManager = (
            beside.pool if beside is not None and beside.server == self.server else _pool(self._base)
        )
        self._headers = {"User-Agent": CLIENT, "Accept-Encoding": "gzip, deflate", **headers}
        # What the service's clock showed last (to a second), and ours as it did.
        self._clock = ("", datetime.now(UTC))

    def call(
        self,
        method: str,
        path: str,
        take: Callable[[BaseHTTPResponse], T],
        *,
        params: Mapping[str, str | list[str]] | None = None,
        body: Body | None = None,
        once: bool = False,
        deadline: Deadline = NEVER,
        read: float | None = None,
        headers: Mapping[str, str] | None = None,
        throttled: bool = False,
    ) -> T:
        """Send a request until there is an answer, and return what `take` makes of it.

        Args:
            method: The HTTP method.
            path: The path, its parts quoted.
            take: Reads the answer (its body is streamed). It may raise as urllib3 and msgspec do: the
                answer then counts as lost.
            params: The URL's query.
            body: What to send: JSON, or what the headers say.
            once: Whether it must take effect no more than once.
            deadline: When to give up, if that is earlier than otherwise.
            read: Seconds to wait for the answer, if that is not what `Patience` says.
            headers: What this request carries besides.
            throttled: Report that the service takes no more requests for now (429), rather than wait.

        Raises:
            ThrottledError: It takes no more (with `throttled` only).
            RefusedError: The service says no.
            UnavailableError: It did not answer, or was not able to serve, until it was time to give up.
            LostError: The request may have taken effect (with `once` only).
        """
        what = f"{method} {path}"
        request = _Request(method, path, params, body, read, headers)
        deadline = self.deadline(deadline, read)
        renewed = False
        error: ServiceError = UnavailableError(f"There was no time left for {what}.")
        for attempt in itertools.count():
            if deadline.passed:
                raise unavailable(error)
            token = self._credential.bearer(deadline=deadline) if self._credential else None
            asked_pause = None
            try:
                response = self._send(request, token, deadline)
                if response.status in _SUCCESS:
                    return _taken(response, take)
                with finished(response):
                    if response.status == _UNAUTHORIZED and token and self._credential and not renewed:
                        renewed = True
                        self._credential.renew(token)
                        continue
                    asked_pause = _asked_pause(response)
                    error = error_of(response, what)
            except (errors.HTTPError, msgspec.DecodeError, ValueError) as broken:
                error = _error_of_exception(what, broken, self.server[-1])
            if not isinstance(error, UnavailableError):
                raise error
            if throttled and error.status == _TOO_MANY:
                raise ThrottledError(
                    error.message,
                    status=error.status,
                    code=error.code,
                    advice=error.advice,
                    retry_after=asked_pause,
                )
            pause = backoff(attempt) if asked_pause is None else asked_pause
            if once and (isinstance(error, AnswerLostError) or error.status not in _NOT_DONE):
                raise LostError(error, pause)
            if not deadline.allows(pause):
                raise unavailable(error)
            fields = {
                "request": what,
                "pause": round(pause, 3),
                "attempt": attempt + 1,
                "status": error.status,
            }
            _log.warning("%s is sent again in %.1f s: %s", what, pause, error, extra={"fields": fields})
            time.sleep(pause)
        raise AssertionError("an endless loop ended")

    def deadline(self, asked: Deadline = NEVER, read: float | None = None) -> Deadline:
        """Return when a call that begins now gives up."""
        return min(asked, self._deadline).sooner(max(self._patience.call, 2 * (read or 0)))

    def service_time(self, local: datetime) -> datetime:
        """Return a time of our clock as the service's shows it, as far as its answers have told."""
        header, received = self._clock
        with suppress(ValueError, TypeError):
            return local + (parsedate_to_datetime(header).astimezone(UTC) - received)
        return local

    def local_time(self, time_: datetime) -> datetime:
        """Return a time of the service's clock as ours shows it; see `service_time`."""
        return time_ - (self.service_time(time_) - time_)

    def _send(self, request: _Request, token: Secret | None, deadline: Deadline) -> BaseHTTPResponse:
        left = max(deadline.left, 0.01)
        headers = {**self._headers, **(request.headers or {})}
        if token:
            headers["Authorization"] = f"Bearer {token.reveal()}"
        if request.body is not None:
            headers["Content-Length"] = str(len(request.body))
        query = f"?{urlencode(request.params, doseq=True)}" if request.params else ""
        response = self.pool.urlopen(
            request.method,
            self._base + request.path + query,
            body=request.body,
            headers=headers,
            timeout=Timeout(
                connect=min(self._patience.connect, left),
                read=min(request.read or self._patience.read, left),
            ),
            preload_content=False,
            retries=_NEVER,
            redirect=False,
        )
        if date := response.headers.get("Date"):
            self._clock = (date, datetime.now(UTC))
        return response


def _pool(base: str) -> PoolManager:
    """Return what keeps connections: to a proxy, where the environment names one for this service."""
    trust: dict[str, Any] = {}
    if base.startswith("https:") and (trusted := authorities()):
        trust["ca_cert_dir" if Path(trusted).is_dir() else "ca_certs"] = trusted
    if any(name.lower().endswith("_proxy") for name in os.environ):
        from requests.adapters import HTTPAdapter  # noqa: PLC0415 - likewise
        from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415 - likewise

        if proxy := select_proxy(base, get_environ_proxies(base)):
            proxy = proxy if "://" in proxy else f"http://{proxy}"
            manager: PoolManager = HTTPAdapter(pool_maxsize=_CONNECTIONS).proxy_manager_for(proxy, **trust)
            return manager
    return PoolManager(maxsize=_CONNECTIONS, **trust)


def part(text: str) -> str:
    """Quote a part of a path."""
    return quote_url(text, safe="") if text not in {".", ".."} else quote_url(text).replace(".", "%2E")


def unavailable(error: ServiceError) -> UnavailableError:
    """Return what is told of an error that lasts: nothing that was asked for has been done."""
    return UnavailableError(error.message, status=error.status, code=error.code, advice=error.advice)


def _taken(response: BaseHTTPResponse, take: Callable[[BaseHTTPResponse], T]) -> T:
    """Return what is made of an answer, which is then done with, unless it is what is taken."""
    taken = None
    try:
        taken = take(response)
    finally:
        if taken is not response:
            _finish(response)
    return taken


@contextmanager
def finished(response: BaseHTTPResponse) -> Iterator[None]:
    """Be done with an answer after the block."""
    try:
        yield
    finally:
        _finish(response)


def _finish(response: BaseHTTPResponse) -> None:
    """Give an answer's connection back; close it if there is more to come, which nobody wants."""
    if response.closed:
        response.release_conn()
    else:
        response.close()


def _asked_pause(response: BaseHTTPResponse) -> float | None:
    """Return the seconds that the service asks us to wait, if it does."""
    with suppress(KeyError, errors.InvalidHeader, ValueError, OverflowError):
        return float(_retry_after.parse_retry_after(response.headers["Retry-After"]))
    return None


def _error_of_exception(what: str, error: Exception, server: str) -> ServiceError:
    """Make an error of what urllib3 or msgspec raised: was the request sent, and may it be sent again?"""
    reason = _reason(error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return RefusedError(
            f"There is no secure connection for {what}: {refusal(reason, server)}",
            advice=f"Trusted here: {authorities() or 'what the machine trusts'}. "
            "REQUESTS_CA_BUNDLE can name another list of authorities.",
        )
    if isinstance(error, errors.ConnectTimeoutError | errors.NewConnectionError | errors.ProxyError):
        return UnavailableError(f"The service cannot be reached for {what}: {_short(reason)}")
    lost = errors.TimeoutError | errors.ProtocolError | errors.SSLError | errors.DecodeError
    if isinstance(error, lost):
        return AnswerLostError(f"The answer to {what} was lost: {_short(reason)}")
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        return AnswerLostError(f"The answer to {what} makes no sense: {quote(str(error))}")
    return RefusedError(f"{what} cannot be sent: {quote(str(error))}")


def _reason(error: BaseException) -> BaseException:
    """Return what is at the bottom of an exception that urllib3 wrapped around the system's."""
    while True:
        inner = error.__cause__ or (error.args or (None,))[-1]
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _short(reason: BaseException) -> str:
    """Say why, without urllib3's words on which of its objects it was."""
    return quote(str(reason).rpartition(": ")[2] or type(reason).__name__)
