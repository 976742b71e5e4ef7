# SPDX-License-Identifier: Apache-2.0
"""The configuration's types.

They are its only schema: `config/tables.py` reads what the admin wrote field by field, checks it against a
field's type, and says "expected …" in the words of the field's `msgspec.Meta`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from qpu_slurm.config.private import read_key
from qpu_slurm.errors import ConfigError, RequestError
from qpu_slurm.names import QPU_NAME
from qpu_slurm.providers.base import Access
from qpu_slurm.system.secret import Secret

MAX_TTL = 28_800
"""Seconds that the service lets a session live at most: 8 h."""

IBM_ENDPOINT = "https://quantum.cloud.ibm.com/api/v1"
"""IBM's public service, in the region us-east; other regions have their name in front of the host's."""

IBM_IAM_ENDPOINT = "https://iam.cloud.ibm.com"

_DAY = 86_400
_LOOPBACK = re.compile(r"http://(?:127\.0\.0\.1|localhost|\[::1\])(?:[:/]|\Z)")

Duration = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=366 * _DAY,
        description='a duration such as "90s", "30m" or "1h30m", or seconds as an integer, from 1s to 366d',
        extra={"duration": True},
    ),
]
"""Whole seconds; a file may write "1h30m"."""

Period = Annotated[
    int,
    msgspec.Meta(
        ge=_DAY,
        le=36_600 * _DAY,
        description='a duration such as "400d", or seconds as an integer, from 1d to 36600d',
        extra={"duration": True},
    ),
]
"""Whole seconds; days and years of them."""

SessionTtl = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=MAX_TTL,
        description='a duration such as "30m" or "8h", or seconds as an integer, from 1s to 8h',
        extra={"duration": True},
    ),
]
"""Whole seconds that a session may live."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000, description="an integer from 0 to 1000000")]

Number = Annotated[int, msgspec.Meta(ge=1, le=100_000, description="an integer from 1 to 100000")]

Bytes = Annotated[
    int, msgspec.Meta(ge=1 << 20, le=1 << 40, description="bytes, an integer from 1048576 (1 MiB) to 1 TiB")
]

Address = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}\Z",
        description='an address and a port such as "127.0.0.1:8470" or "[::1]:8470"',
    ),
]

# What stands in one of these by mistake may be a credential, so errors do not repeat it.
_UNQUOTED = {"unquoted": True}

AbsolutePath = Annotated[Path, msgspec.Meta(description="an absolute path", extra=_UNQUOTED)]

Url = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\Ahttps?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?"
        r"(?:/[A-Za-z0-9._~%+-]+)*/?\Z",
        max_length=1000,
        description=f'a URL such as "{IBM_ENDPOINT}", with neither user nor query',
        extra=_UNQUOTED,
    ),
]

Origin = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\Ahttps?://(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?\Z",
        description='a URL such as "https://controller:8470", with nothing behind host and port',
        extra=_UNQUOTED,
    ),
]

Crn = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\Acrn:v1(?::[A-Za-z0-9._~/-]*){8}\Z",
        max_length=1000,
        description='the CRN of a service instance, "crn:v1:…" with ten fields in all',
        extra=_UNQUOTED,
    ),
]

Name = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"\A(?:{QPU_NAME.pattern})\Z",
        # docs/configuration.md says more.
        description="a name that variables can have: a letter, then letters, digits or _, at most 64 in all "
        "(a shell drops variables with - or : in their name: write _, with the service's name as backend)",
    ),
]


Users = Annotated[
    tuple[Annotated[str, msgspec.Meta(min_length=1)] | Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)], ...],
    msgspec.Meta(description='a list of users such as ["slurm"], by name or number', extra={"list": True}),
]


class SlurmConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How Slurm's own programs are run.

    Attributes:
        conf: The cluster's slurm.conf; a controller's hook is not told where it is.
        bin: Where scontrol and squeue are; a hook has no PATH.
        timeout: Seconds after which a Slurm that does not answer is given up on.
        munge_socket: Where munged listens; None leaves it to libmunge, which knows.
    """

    conf: AbsolutePath = Path("/etc/slurm/slurm.conf")
    bin: AbsolutePath = Path("/usr/bin")
    timeout: Duration = 10
    munge_socket: AbsolutePath | None = None


class OutageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to a job that starts while the quantum service is away.

    Attributes:
        tries: How often it is requeued before it is given up on.
        delay: Seconds until its first new start; later ones take longer.
        max_delay: Seconds that the delay does not grow beyond.
        acquire_timeout: Seconds that one acquire may take in all.
    """

    tries: Count = 10
    delay: Duration = 60
    max_delay: Duration = 1800
    acquire_timeout: Duration = 60


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway: the one service that holds keys and journal, and that hooks and steps talk to.

    Attributes:
        url: Its base URL, as hooks and steps reach it.
        listen: The address and port that it listens on.
        certificate: Its TLS certificate (PEM, with what stands between it and the root); None: plain http.
        certificate_key: That certificate's private key.
        ca: The authority that clients trust; None: those that the machine trusts.
        reap_every: Seconds between two looks for leases that nobody needs any more.
        trusted_users: Who may have leases granted and ended, besides root and the user that the journal
            belongs to: SlurmUser, as whom the hooks run, where the gateway runs as another user.
        log: Its log file, where that is another one than the hooks'.
        max_body: Bytes that a request's body may have at most.
        max_connections: How many connections it serves at once.
        max_connections_per_address: How many of them may come from one address.
        max_connections_per_user: How many of them may carry requests of one user at once.
        reserved_connections: How many more it serves when there are that many, for hooks and steps alone.
        request_timeout: Seconds that a request may take to arrive, a submission's body aside.
        sessions_per_minute: How many sessions one lease may have opened in a minute.
    """

    url: Origin
    listen: Address = "127.0.0.1:8470"
    certificate: AbsolutePath | None = None
    certificate_key: AbsolutePath | None = None
    ca: AbsolutePath | None = None
    reap_every: Duration = 60
    trusted_users: Users = ()
    log: AbsolutePath | None = None
    max_body: Bytes = 1 << 30
    max_connections: Number = 4000
    max_connections_per_address: Number = 1000
    max_connections_per_user: Number = 500
    reserved_connections: Number = 64
    request_timeout: Duration = 20
    sessions_per_minute: Number = 20

    def warnings(self) -> list[str]:
        """Say what is insecure about it."""
        return _in_the_clear("gateway", self.url)


class QpuConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One QPU.

    Attributes:
        name: What users write in `--qpu`.
        type: The resource type, in QRMI's words; the second is an older name of the first.
        backend: The service's name of the QPU; by default the same.
        endpoint: The service's base URL, its version included.
        iam_endpoint: The base URL that turns an API key into a token.
        search_endpoint: Global Search, where it is not IBM's public one.
        catalog_endpoint: The Global Catalog, where it is not IBM's public one.
        instance: The service instance (a CRN) that pays.
        credentials: Whose key opens the sessions. `user`: the user's own. `gateway`: the admin's, which
            only the gateway has. `shared`: the admin's, which every job that names the QPU then gets to
            see: insecure, and what an upstream configuration means.
        key_file: What holds the admin's key; with `gateway` on the gateway's host only.
        mode: The session's mode; an account of the Open plan can open only `batch`.
        max_ttl: Seconds that a session may live at most, whatever the job's time limit.
        task_timeout: Seconds of QPU time that one task may take; None leaves it to the service.
        session: How long a job holds a session where its user does not say (`--qpu-session`): as long as
            the job lives, or from its first task on.
        exclusive: Whether one job of the whole cluster at a time may have a lease on it.
        max_leases: How many jobs may have a lease on it at a time; None: any number.
        api_key: The admin's key, where an upstream configuration holds it itself.
    """

    name: Name
    type: Literal["ibm-quantum-compute-service", "qiskit-runtime-service"] = "ibm-quantum-compute-service"
    backend: Name = ""
    endpoint: Url = IBM_ENDPOINT
    iam_endpoint: Url = IBM_IAM_ENDPOINT
    search_endpoint: Url | None = None
    catalog_endpoint: Url | None = None
    instance: Crn
    credentials: Literal["user", "gateway", "shared"] = "user"
    key_file: AbsolutePath | None = None
    mode: Literal["dedicated", "batch"] = "dedicated"
    max_ttl: SessionTtl = MAX_TTL
    task_timeout: Duration | None = None
    session: Literal["job", "task"] = "job"
    exclusive: bool = False
    max_leases: Number | None = None
    api_key: Secret | None = None

    def __post_init__(self) -> None:
        """Call the backend what the QPU is called, unless the admin said otherwise."""
        if not self.backend:
            msgspec.structs.force_setattr(self, "backend", self.name)

    @property
    def limit(self) -> int | None:
        """How many jobs may have it at once; None is any number."""
        return 1 if self.exclusive else self.max_leases

    @property
    def through_gateway(self) -> bool:
        """Whether jobs reach it through the gateway, which alone has the key and opens all sessions."""
        return self.credentials == "gateway"

    @property
    def needs_user_key(self) -> bool:
        """Whether its sessions are opened with the key of the job's user."""
        return self.credentials == "user"

    def key(self, user_key: Secret | None = None) -> Secret:
        """Return the key that this QPU's sessions are opened with.

        Args:
            user_key: The user's own, where one was published.

        Raises:
            RequestError: It has to be the user's own, and there is none.
            ConfigError: The admin's cannot be read, or others can read it too.
        """
        if self.needs_user_key:
            if user_key is None:
                raise RequestError(
                    f"{self.name} needs your own API key, and the job has none. Run "
                    "`export QISKIT_IBM_TOKEN=<your API key>` in the shell from which you submit."
                )
            return user_key
        if self.api_key is not None:
            return self.api_key
        if self.key_file is None:
            raise ConfigError(f'[[qpu]] {self.name!r}: credentials = "{self.credentials}" needs a key_file.')
        return read_key(self.key_file)

    def access(self, user_key: Secret | None = None) -> Access:
        """Say how the QPU is reached; see `key` for the argument and for what it raises."""
        return Access(
            type=self.type,
            backend=self.backend,
            endpoint=self.endpoint,
            iam_endpoint=self.iam_endpoint,
            instance=self.instance,
            api_key=self.key(user_key),
            mode=self.mode,
        )

    def warnings(self) -> list[str]:
        """Say what is insecure about how this QPU is reached."""
        found = _in_the_clear(self.name, self.endpoint, self.iam_endpoint)
        if self.credentials == "shared":
            found.append(
                f'{self.name}: credentials = "shared" is insecure: every job that names the QPU gets the key.'
            )
        return found


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the admin wrote.

    Attributes:
        path: The file that it was read from.
        journal: The record of all leases; on a local disk of the controller.
        keep: Seconds after which a lease that is over is deleted from the journal.
        log: The log file; None logs to stderr.
        log_level: The least severe event that is logged.
        audit_syslog: The socket of the system's log, such as /dev/log, which then gets the audit as well: who
            was granted, submitted or refused what. The log file has it in any case.
        acquire_on: What acquires a session: the option `--qpu`, or only a gres (`--qpu` alone then binds).
        slurm: See `SlurmConfig`.
        outage: See `OutageConfig`.
        gateway: See `GatewayConfig`; None: hooks and steps talk to the service themselves.
        qpus: The QPUs by name, in the file's order.
        warnings: What an admin should know, one sentence each: what was skipped, what is insecure.
    """

    path: Path
    journal: AbsolutePath = Path("/var/lib/qpu_slurm/journal.sqlite")
    keep: Period = 400 * _DAY
    log: AbsolutePath | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    audit_syslog: AbsolutePath | None = None
    acquire_on: Literal["qpu", "gres"] = "qpu"
    slurm: SlurmConfig = SlurmConfig()
    outage: OutageConfig = OutageConfig()
    gateway: GatewayConfig | None = None
    qpus: dict[str, QpuConfig]
    warnings: tuple[str, ...] = ()

    def qpu(self, name: str) -> QpuConfig:
        """Return a QPU by the name that a user wrote.

        Raises:
            RequestError: There is none of that name; the sentence lists those that there are.
        """
        try:
            return self.qpus[name]
        except KeyError:
            raise RequestError(
                f"There is no QPU {name[:64]!r} here. Choose one of: {', '.join(self.qpus)}."
            ) from None


def _in_the_clear(name: str, *urls: str) -> list[str]:
    return [
        f"{name}: {url} is insecure: http sends credentials unencrypted. Use https."
        for url in urls
        if url.startswith("http:") and not _LOOPBACK.match(url)
    ]
