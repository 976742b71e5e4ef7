# SPDX-License-Identifier: Apache-2.0
"""How hooks and steps ask the gateway."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import msgspec
import requests
import structlog
from requests.auth import AuthBase

from qpu_slurm import munge
from qpu_slurm.errors import ConfigError, Unavailable
from qpu_slurm.gateway import messages
from qpu_slurm.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.config import Config
    from qpu_slurm.history import JobHistory
    from qpu_slurm.leases.model import Lease, LeaseRequest

T = TypeVar("T")

_CONNECT_SECONDS = 3.0
_RELEASE_SECONDS = 5.0
_KEYS_SECONDS = 5.0
_HISTORY_SECONDS = 30.0
_GIVE_BACK_SECONDS = 15.0
"""How much longer than its `acquire_timeout` an acquire may take: what it gives back takes time as well."""

_PATIENCE = 3.0
"""Seconds after which a gateway that does not answer is not one that is just being started again."""

_PAUSE = 0.1

_OK = 200

_log = structlog.get_logger(__name__)


class GatewayBroker:
    """The broker, as the gateway lets it be reached. Who asks is told by MUNGE.

    All that it asks for may be asked for again, so a request whose answer was lost is simply repeated, for as
    long as it may take.

    Args:
        config: What the admin wrote; it has a [gateway] table.

    Raises:
        ConfigError: It has none.
    """

    def __init__(self, config: Config) -> None:
        if config.gateway is None:
            raise ConfigError(f"{config.path}: there is no [gateway] table.")
        self._gateway = config.gateway
        self._socket = config.slurm.munge_socket
        self._acquire_seconds = config.outage.acquire_timeout + _GIVE_BACK_SECONDS

    def acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        """Have the gateway's broker acquire; see `Broker.acquire` for what is raised.

        Raises:
            Unavailable: The gateway is away, or does not believe that we are SlurmUser.
        """
        body = messages.encode(request)
        return self._ask(
            "POST",
            messages.LEASES_PATH,
            messages.Leases,
            self._acquire_seconds,
            body=body,
            patience=_PATIENCE,
        )

    def release(self, job_id: int, reason: str) -> tuple[Lease, ...]:
        """Have the gateway's broker release; see `Broker.release`.

        A gateway that is away is not waited for: its reaper finds the job that is gone when it is back.

        Raises:
            Unavailable: It is away, or takes longer than a hook should.
        """
        path = messages.job_leases_path(job_id, reason)
        return self._ask("DELETE", path, messages.Leases, _RELEASE_SECONDS)

    def keys(self, job_id: int, *, seconds: float = _KEYS_SECONDS) -> dict[str, Secret]:
        """Ask for the keys of a job of this process's user.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            seconds: How long that may take.

        Returns:
            A key for each QPU that the job holds or is bound to.
        """
        path = messages.job_keys_path(job_id)
        keys = self._ask("GET", path, messages.Keys, seconds, patience=seconds)
        return {name: Secret(key) for name, key in keys.items()}

    def history(self, job_id: int) -> JobHistory:
        """Ask what is known of a job of this process's user.

        Args:
            job_id: The job; of a heterogeneous job, the leader.

        Raises:
            NotFound: Nothing is.
            Refused: It is another user's.
        """
        # Here, since hooks and steps have no use for it.
        from qpu_slurm.history import JobHistory  # noqa: PLC0415

        path = messages.job_history_path(job_id)
        return self._ask("GET", path, JobHistory, _HISTORY_SECONDS, patience=_PATIENCE)

    def _ask(
        self,
        method: str,
        path: str,
        type_: type[T],
        seconds: float,
        *,
        body: bytes = b"",
        patience: float = 0,
    ) -> T:
        """Send a request, and again until no answer has come for `patience` seconds."""
        deadline = time.monotonic() + seconds
        give_up = None
        while True:
            try:
                return self._send(method, path, type_, deadline, body)
            except _Away as error:
                give_up = give_up or min(deadline, time.monotonic() + patience)
                if time.monotonic() + _PAUSE >= give_up:
                    raise
                _log.debug("the gateway is asked again", why=str(error))
            time.sleep(_PAUSE)

    def _send(self, method: str, path: str, type_: type[T], deadline: float, body: bytes) -> T:
        left = max(0.1, deadline - time.monotonic())
        url, ca = self._gateway.url, self._gateway.ca
        try:
            with requests.Session() as session:
                # Proxies and other things that an environment may say are for the outside.
                session.trust_env = False
                response = session.request(
                    method,
                    url + path,
                    data=body or None,
                    headers={"Content-Type": "application/json"} if body else None,
                    auth=_Munge(messages.binding(method, path, body), self._socket),
                    timeout=(min(left, _CONNECT_SECONDS), left),
                    verify=str(ca) if ca else True,
                    allow_redirects=False,
                )
        except requests.exceptions.SSLError as error:
            raise Unavailable(f"The gateway {url} cannot be trusted: {_reason(error)}.") from None
        except requests.RequestException as error:
            raise _Away(f"The gateway {url} does not answer: {_reason(error)}.") from None
        except OSError as error:
            raise ConfigError(f"[gateway] ca: {error}.") from None
        if response.status_code != _OK:
            messages.raise_error(response.status_code, response.content)
        try:
            return messages.decode(response.content, type_)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unavailable(f"What answers at {url} is no gateway of this release.") from None


class _Away(Unavailable):
    """There was no answer."""


class _Munge(AuthBase):
    """Signs a request with a credential of its own, since each is good for one time."""

    def __init__(self, payload: bytes, socket: Path | None) -> None:
        self._payload = payload
        self._socket = socket

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        credential = munge.encode(self._payload, socket=self._socket)
        request.headers["Authorization"] = f"{messages.SCHEME} {credential}"
        return request


def _reason(error: BaseException) -> str:
    """Say what is at the bottom of an exception that requests and urllib3 wrapped."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
