# SPDX-License-Identifier: Apache-2.0
"""The quantum service behind the gateway, asked with the admin's credential."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import structlog
from requests.utils import get_environ_proxies, select_proxy
from yarl import URL

from qpu_slurm.config import ComputeServiceQpu
from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.gateway.answers import ApiError, CutOffError, unavailable
from qpu_slurm.gateway.upstream import READ, SUBMIT
from qpu_slurm.providers.ibm.http import CLIENT, Http, Patience
from qpu_slurm.providers.ibm.iam import IamToken
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from concurrent.futures import Executor

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.gateway.gateway import Gateway
    from qpu_slurm.gateway.upstream import Body, Query
    from qpu_slurm.system.secret import Secret

_CONNECT = 5.0
_UNAUTHORIZED = 401

_TRUSTED_FOR = 5.0
"""Seconds between two checks whether a token has to be renewed."""

_log = structlog.get_logger(__name__)


class Bearer:
    """The token for the admin's key, kept as long as it is valid.

    A thread requests it. The key's file is read when there is no token yet, and after one was refused. So a
    new key needs no restart.

    Args:
        qpu: The QPU with the key.
        pool: The threads.
    """

    def __init__(self, qpu: ComputeServiceQpu, pool: Executor) -> None:
        self._qpu = qpu
        self._pool = pool
        self._iam: IamToken | None = None
        self._token: Secret | None = None
        self._look_at = Deadline.after(0)
        self._lock = asyncio.Lock()

    async def token(self) -> Secret:
        """Return a token that is valid now.

        Raises:
            ApiError: IAM gives none.
        """
        if self._token is None or self._look_at.passed:
            async with self._lock:
                if self._token is None or self._look_at.passed:
                    await self._renew()
        if self._token is None:
            raise AssertionError("renewed, and no token")
        return self._token

    def refused(self, token: Secret) -> None:
        """Drop a refused token, and the key behind it."""
        if self._token is token:
            self._token = self._iam = None

    async def _renew(self) -> None:
        try:
            self._token = await asyncio.get_running_loop().run_in_executor(self._pool, self._ask)
        except QpuSlurmError as error:
            self._iam = None
            _log.error("no token for the service", qpu=self._qpu.name, why=str(error))
            raise unavailable(f"The gateway has no access to {self._qpu.name} now.") from None
        self._look_at = Deadline.after(_TRUSTED_FOR)

    def _ask(self) -> Secret:
        if self._iam is None:
            http = Http(
                self._qpu.iam_endpoint,
                {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
                patience=Patience(),
            )
            self._iam = IamToken(http, self._qpu.key())
        return self._iam.bearer(deadline=Deadline.after(READ / 3))


class Tokens(Protocol):
    """Where an upstream has its token from; `Bearer` is one."""

    async def token(self) -> Secret:
        """Return a token that is valid now.

        Raises:
            ApiError: There is none.
        """

    def refused(self, token: Secret) -> None:
        """Drop a refused token."""


class HttpUpstream:
    """One QPU's service, asked over HTTP; see `gateway.upstream.Upstream`.

    Args:
        qpu: The QPU.
        base: The URL below which its API is.
        client: Its connections.
        bearer: What requests are authorized by.
        headers: What every request carries.
    """

    def __init__(
        self,
        qpu: QpuConfig,
        base: str,
        client: aiohttp.ClientSession,
        bearer: Tokens,
        headers: Mapping[str, str],
    ) -> None:
        self.qpu = qpu
        self._client = client
        self._base = base.rstrip("/")
        self._bearer = bearer
        self._headers = headers
        # As for the broker's requests. aiohttp would read the environment each time, in a thread.
        self._proxy = select_proxy(self._base, get_environ_proxies(self._base))

    @asynccontextmanager
    async def send(
        self,
        method: str,
        *parts: str,
        query: Query = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        once: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; see `Upstream.send`."""
        path = "".join(f"/{quote(part, safe='')}" for part in parts)
        url = URL(f"{self._base}{path}{'?' if query else ''}{urlencode(query)}", encoded=True)
        own = {"Accept-Encoding": "identity", "User-Agent": CLIENT, **(headers or {})}
        own |= self._headers
        if body is not None:
            own["Content-Type"] = "application/json"
        for attempt in range(2):
            token = await self._bearer.token()
            own["Authorization"] = f"Bearer {token.reveal()}"
            async with await self._ask(method, url, own, body, once=once) as answer:
                if answer.status != _UNAUTHORIZED:
                    yield answer
                    return
            self._bearer.refused(token)
            if attempt or not isinstance(body, bytes | None):
                break
        _log.error("the service refuses the gateway's key", qpu=self.qpu.name)
        raise unavailable(f"The service does not accept the gateway's key for {self.qpu.name}.")

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str], body: Body | None, *, once: bool
    ) -> aiohttp.ClientResponse:
        log = _log.bind(method=method, path=url.path, qpu=self.qpu.name)
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT, sock_read=SUBMIT if once else READ)
        try:
            return await self._client.request(
                method,
                url,
                headers=headers,
                data=body,
                timeout=timeout,
                proxy=self._proxy,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            log.warning("the service cannot be reached", why=str(error))
            raise unavailable("The quantum service cannot be reached now.") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            log.warning("the service did not answer", why=str(error) or type(error).__name__)
            if once:
                raise CutOffError(url.path) from error
            raise ApiError(
                502, "The quantum service did not answer.", "Try again later.", kind="lost"
            ) from error


def in_the_cloud(qpu: QpuConfig, gateway: Gateway) -> HttpUpstream | None:
    """Return the upstream of a QPU in IBM's cloud; None for any other."""
    if not isinstance(qpu, ComputeServiceQpu):
        return None
    bearer = Bearer(qpu, gateway.pools.short.executor)
    return HttpUpstream(qpu, qpu.endpoint, gateway.client, bearer, {"Service-CRN": qpu.instance})
