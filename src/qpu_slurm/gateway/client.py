# SPDX-License-Identifier: Apache-2.0
"""Sends the requests of hooks and steps to the gateway.

Slurm waits for it at every step's start, and there is only one request to send. So it uses the standard
library's http.client, whose import takes a quarter of the time of requests.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast
from urllib.parse import urlsplit

import msgspec

from qpu_slurm.errors import ConfigError, UnavailableError
from qpu_slurm.gateway import messages
from qpu_slurm.system import munge
from qpu_slurm.system.certificates import refusal
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.version import __version__

if TYPE_CHECKING:
    from qpu_slurm.config import Config, GatewayConfig
    from qpu_slurm.journal.balances import Balance
    from qpu_slurm.journal.model import Lease, LeaseRequest, Refusal
    from qpu_slurm.leases.availability import QpuReport
    from qpu_slurm.leases.job_history import JobHistory

T = TypeVar("T")

_CONNECT_SECONDS = 3.0
_RELEASE_SECONDS = 5.0
_KEYS_SECONDS = 5.0
_STEP_END_SECONDS = 4.0
_HISTORY_SECONDS = 30.0
_GIVE_BACK_SECONDS = 15.0
"""How much longer than `acquire_timeout` an acquire may take if it has to give leases back."""

_PATIENCE = 3.0
"""Seconds that a restart of the gateway may take; after that, it counts as away."""

_PAUSE = 0.1

_OK = 200

_log = logging.getLogger(__name__)


class GatewayBroker:
    """The gateway's broker. MUNGE authenticates the requests.

    Every request may be repeated, so one whose answer was lost is sent again, as long as there is time.

    Args:
        config: The configuration, with a [gateway] table.

    Raises:
        ConfigError: The configuration has no such table.
    """

    def __init__(self, config: Config) -> None:
        if config.gateway is None:
            raise ConfigError(f"{config.path}: there is no [gateway] table.")
        self._gateway = config.gateway
        self._socket = config.slurm.munge_socket
        self._acquire_seconds = config.outage.acquire_timeout + _GIVE_BACK_SECONDS

    def acquire(self, request: LeaseRequest) -> tuple[Lease, ...]:
        """Have the gateway's broker acquire; see `Broker.acquire` for more errors.

        Raises:
            UnavailableError: The gateway is away, or does not accept this user as SlurmUser.
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

    def release(self, job_id: int, reason: str, *, run: str = "", others: bool = False) -> tuple[Lease, ...]:
        """Have the gateway's broker release; see `Broker.release`.

        This does not wait for a gateway that is away. Its reaper finds the ended job later.

        Raises:
            UnavailableError: It is away, or takes longer than a hook should.
        """
        path = messages.job_leases_path(job_id, reason, run, others=others)
        return self._ask("DELETE", path, messages.Leases, _RELEASE_SECONDS)

    def refuse(self, refusal: Refusal) -> None:
        """Have the gateway record that a job was refused, without waiting for a gateway that is away.

        Raises:
            UnavailableError: It is away.
        """
        body = messages.encode(refusal)
        self._ask("POST", messages.REFUSALS_PATH, type(None), _RELEASE_SECONDS, body=body)

    def keys(
        self, job_id: int, *, seconds: float = _KEYS_SECONDS, patience: float = _PATIENCE
    ) -> messages.Keys:
        """Return the keys of a job of this process's user.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            seconds: How long that may take.
            patience: For how many of them a gateway that does not answer is asked again.

        Returns:
            For each QPU that the job holds or is bound to: a key, and the current session.
        """
        path = messages.job_keys_path(job_id)
        return self._ask("GET", path, messages.Keys, seconds, patience=patience)

    def step_started(
        self,
        job_id: int,
        step: str,
        name: str,
        ago: float,
        *,
        seconds: float = _KEYS_SECONDS,
        patience: float = _PATIENCE,
    ) -> messages.Keys:
        """Report the start of a step of this user's job; return the job's keys, as `keys` does.

        Args:
            job_id: The job; of a heterogeneous job, the leader.
            step: Slurm's id of the step.
            name: Its program.
            ago: How many seconds ago it started.
            seconds: How long asking may take.
            patience: For how many of them a gateway that does not answer is asked again.
        """
        path = messages.job_steps_path(job_id)
        start = messages.StepStart(step=step, name=name, seconds_ago=min(ago, messages.MAX_AGO))
        body = messages.encode(start)
        return self._ask("POST", path, messages.Keys, seconds, body=body, patience=patience)

    def variables(
        self,
        job_id: int,
        step: tuple[str, str, float] | None = None,
        *,
        seconds: float = _KEYS_SECONDS,
        patience: float = _PATIENCE,
    ) -> str:
        """Return the variables of this user's job as lines NAME=value; none for a job without a QPU.

        Args:
            job_id: The job; of a heterogeneous job, the component.
            step: What starts: Slurm's id of the step, its program, how many seconds ago; None: nothing.
            seconds: How long asking may take.
            patience: For how many of them a gateway that does not answer is asked again.
        """
        fields = {}
        if step is not None:
            name, program, ago = step
            fields = {"step": name, "name": program, "ago": f"{min(ago, messages.MAX_AGO):.3f}"}
        body = messages.write_fields(fields)
        path = messages.job_variables_path(job_id)
        return self._ask("POST", path, str, seconds, body=body, patience=patience)

    def step_ended(self, job_id: int, step: str, ago: float, cancel: str = "") -> None:
        """Report the end of a step of this user's job.

        Args:
            job_id: The job; of a heterogeneous job, any component.
            step: Slurm's id of it.
            ago: How many seconds ago.
            cancel: The mark of a failed step, whose remaining tasks are cancelled.
        """
        path = messages.step_end_path(job_id, step, min(ago, messages.MAX_AGO), cancel)
        self._ask("DELETE", path, type(None), _STEP_END_SECONDS, patience=_PATIENCE)

    def history(self, job_id: int) -> JobHistory:
        """Return the history of a job of this process's user.

        Args:
            job_id: The job; of a heterogeneous job, the leader.

        Raises:
            NotFoundError: The gateway does not know the job.
            RefusedError: It is another user's job.
        """
        # Here, since hooks and steps have no use for it.
        from qpu_slurm.leases.job_history import JobHistory  # noqa: PLC0415

        path = messages.job_history_path(job_id)
        return self._ask("GET", path, JobHistory, _HISTORY_SECONDS, patience=_PATIENCE)

    def qpus(self) -> tuple[QpuReport, ...]:
        """Return the state of the QPUs, which every user may see."""
        # Here, likewise.
        from qpu_slurm.leases.availability import QpuReport  # noqa: PLC0415

        type_ = tuple[QpuReport, ...]
        return self._ask("GET", messages.QPUS_PATH, type_, _KEYS_SECONDS, patience=_PATIENCE)

    def budgets(self, user_id: int) -> tuple[Balance, ...]:
        """Return the balance of every budget that limits this process's user."""
        # Here, likewise.
        from qpu_slurm.journal.balances import Balance  # noqa: PLC0415

        del user_id  # MUNGE says who asks
        type_ = tuple[Balance, ...]
        return self._ask("GET", messages.BUDGETS_PATH, type_, _HISTORY_SECONDS, patience=_PATIENCE)

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
        """Send a request; repeat it until there was no answer for `patience` seconds."""
        deadline = Deadline.after(seconds)
        give_up = None
        while True:
            try:
                return self._send(method, path, type_, deadline, body)
            except _AwayError as error:
                give_up = give_up or deadline.sooner(patience)
                if not give_up.allows(_PAUSE):
                    raise
                _log.debug("The gateway is asked again. %s", error)
            time.sleep(_PAUSE)

    def _send(self, method: str, path: str, type_: type[T], deadline: Deadline, body: bytes) -> T:
        left = max(0.1, deadline.left)
        headers = {"User-Agent": f"qpu_slurm/{__version__}"}
        if body:
            headers["Content-Type"] = "application/json"
        # Each try needs a new one, which is valid once.
        credential = munge.encode(messages.binding(method, path, body), socket=self._socket)
        headers["Authorization"] = f"{messages.SCHEME} {credential}"
        url = self._gateway.url
        try:
            answer = self._exchange(method, path, body, headers, left)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableError(
                f"The gateway is not trusted: {refusal(error, urlsplit(url).netloc)}."
            ) from None
        except ssl.SSLError as error:
            raise UnavailableError(f"The gateway {url} does not speak TLS: {_reason(error)}.") from None
        except (OSError, http.client.HTTPException) as error:
            raise _AwayError(f"The gateway {url} does not answer: {_reason(error)}.") from None
        _log.debug("The gateway answered %s %s with %d.", method, path, answer.status)
        if answer.status != _OK:
            messages.raise_error(answer.status, answer.body)
        try:
            if type_ is str:
                return cast("T", answer.body.decode("ascii"))
            return messages.decode(answer.body, type_)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnavailableError(f"The server at {url} is not a gateway of this release.") from None

    def _exchange(
        self, method: str, path: str, body: bytes, headers: dict[str, str], seconds: float
    ) -> _Answer:
        """Send a request over a connection of its own, and read the answer."""
        with closing(connection(self._gateway, min(seconds, _CONNECT_SECONDS), seconds)) as own:
            own.connect()
            own.sock.settimeout(seconds)
            own.request(method, path, body or None, headers)
            response = own.getresponse()
            return _Answer(response.status, response.read())


class _Tls(http.client.HTTPSConnection):
    """A connection whose handshake may take as long as an answer.

    While a gateway restarts, the kernel accepts connections for it, but only the gateway answers handshakes.
    """

    def __init__(
        self, host: str, port: int, *, seconds: float, handshake: float, context: ssl.SSLContext
    ) -> None:
        super().__init__(host, port, timeout=seconds, context=context)
        self._handshake = handshake
        self._ssl = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock.settimeout(self._handshake)
        self.sock = self._ssl.wrap_socket(self.sock, server_hostname=self.host)


def connection(
    gateway: GatewayConfig, seconds: float, handshake: float | None = None
) -> http.client.HTTPConnection:
    """Return a connection to the gateway, not open yet, which trusts the authority in `ca`.

    It ignores proxies and all other variables of the environment.

    Args:
        gateway: How it is reached.
        seconds: How long to wait for the connection.
        handshake: How long to wait for TLS, if not as long.

    Raises:
        ConfigError: The file in `ca` cannot be read.
    """
    url = urlsplit(gateway.url)
    host = url.hostname or ""
    if url.scheme == "http":
        return http.client.HTTPConnection(host, url.port or http.client.HTTP_PORT, timeout=seconds)
    try:
        context = ssl.create_default_context(cafile=gateway.ca)
    except OSError as error:
        raise ConfigError(f"[gateway] ca: {gateway.ca}: {_reason(error)}.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    port = url.port or http.client.HTTPS_PORT
    return _Tls(host, port, seconds=seconds, handshake=handshake or seconds, context=context)


class _Answer(NamedTuple):
    status: int
    body: bytes


class _AwayError(UnavailableError):
    """There was no answer."""


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
