# SPDX-License-Identifier: Apache-2.0
"""The configuration's types.

They are its only schema. `config/tables.py` reads the file field by field, checks each value against the
field's type, and reports "expected …" in the words of the field's `msgspec.Meta`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from qpu_slurm.config.access import AccessRules
from qpu_slurm.config.attributes import Attributes
from qpu_slurm.config.budgets import BudgetsConfig
from qpu_slurm.config.private import read_key
from qpu_slurm.errors import ConfigError, RequestError
from qpu_slurm.names import QPU_NAME
from qpu_slurm.providers.base import Access
from qpu_slurm.qpu_option import ANY
from qpu_slurm.system.secret import Secret

MAX_TTL = 28_800
"""The longest life of a session that the service allows, in seconds: 8 h."""

IBM_ENDPOINT = "https://quantum.cloud.ibm.com/api/v1"
"""IBM's public service in the region us-east. Other regions have their name before the host's."""

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
"""Whole seconds. A file may have "1h30m"."""

Patience = Annotated[
    int,
    msgspec.Meta(
        ge=0,
        le=_DAY,
        description='a duration such as "10m", or seconds as an integer, from 0 to 1d',
        extra={"duration": True},
    ),
]
"""Whole seconds of a wait. 0 is no wait."""

Period = Annotated[
    int,
    msgspec.Meta(
        ge=_DAY,
        le=36_600 * _DAY,
        description='a duration such as "400d", or seconds as an integer, from 1d to 36600d',
        extra={"duration": True},
    ),
]
"""Whole seconds, up to years."""

SessionTtl = Annotated[
    int,
    msgspec.Meta(
        ge=1,
        le=MAX_TTL,
        description='a duration such as "30m" or "8h", or seconds as an integer, from 1s to 8h',
        extra={"duration": True},
    ),
]
"""The life of a session, in whole seconds."""

Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000, description="an integer from 0 to 1000000")]

AtOnce = Annotated[int, msgspec.Meta(ge=1, le=100, description="an integer from 1 to 100")]

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

# A value that is here by mistake may be a credential, so errors do not quote it.
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
        pattern=rf"\A(?!{ANY}\Z)(?:{QPU_NAME.pattern})\Z",
        # docs/configuration.md says more.
        description="a name that variables can have: a letter, then letters, digits or _, at most 64 in all, "
        f"other than {ANY} "
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
        conf: The cluster's slurm.conf. A controller's hook has no variable that names it.
        bin: The directory of scontrol and squeue. A hook has no PATH.
        timeout: Seconds that Slurm has for an answer.
        munge_socket: The socket of munged; None is libmunge's default.
    """

    conf: AbsolutePath = Path("/etc/slurm/slurm.conf")
    bin: AbsolutePath = Path("/usr/bin")
    timeout: Duration = 10
    munge_socket: AbsolutePath | None = None


class OutageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to a job, or to a step, that starts during an outage.

    Attributes:
        tries: How often it is requeued before it fails.
        delay: Seconds until its first new start. Later delays are longer.
        max_delay: The longest delay, in seconds.
        acquire_timeout: Seconds for one acquire in all.
        step_patience: Seconds for which a step waits for an answer; see `Config.step_patience`.
    """

    tries: Count = 10
    delay: Duration = 60
    max_delay: Duration = 1800
    acquire_timeout: Duration = 60
    step_patience: Patience = 600


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The gateway: the service that holds keys and journal, and answers hooks and steps.

    Attributes:
        url: Its base URL for hooks and steps.
        listen: The address and port that it listens on.
        certificate: Its TLS certificate (PEM, with the intermediate ones); None: plain http.
        certificate_key: That certificate's private key.
        ca: The authority that clients trust; None: those that the machine trusts.
        reap_every: Seconds between two runs of the reaper.
        trusted_users: The users that may acquire and release leases, besides root and the journal's owner. If
            the gateway does not run as SlurmUser, SlurmUser is one: it runs the hooks.
        log: Its log file, if it is not that of the hooks.
        max_body: The largest body of a request, in bytes.
        max_connections: How many connections it serves at once.
        max_connections_per_address: How many of them may come from one address.
        max_connections_per_user: How many of them may carry requests of one user at once.
        reserved_connections: How many more it serves beyond that, for hooks and steps only.
        request_timeout: Seconds in which a request has to arrive, except for the body of a submission.
        sessions_per_minute: How many sessions one lease may open in a minute.
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
        """Return its insecure settings, a sentence each."""
        return in_the_clear("gateway", self.url)


class QpuConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One QPU; `config.kinds` has what each kind of service needs besides.

    Attributes:
        name: Its name in `--qpu`.
        type: The resource type, in QRMI's words: it says which kind this is.
        backend: The service's name of the QPU; by default the same.
        endpoint: The service's base URL.
        credentials: The key that opens sessions. `user`: the user's own. `gateway`: the admin's, which only
            the gateway has. `shared`: the admin's, which every job that names the QPU can read. That is
            insecure, and what an upstream configuration means.
        key_file: The file with the admin's key; with `gateway`, on the gateway's host only.
        session: When a job's session begins without `--qpu-session`: at the job's start (`job`), or with its
            first task (`task`).
        exclusive: Whether only one job of the cluster at a time may have a lease on it.
        max_leases: How many jobs may have a lease on it at a time; None: any number.
        starts_at_once: How many sessions are asked for at a time; other jobs that start wait for their turn.
            A service that is asked too much lowers it for a while.
        access_rules: Who may use it (`access` in the file).
        attributes: What it is like, where its service does not say it.
        api_key: The admin's key, if an upstream configuration contains it.
        needs: The keys without a default of which only an upstream configuration can do without.
        limits: What this kind of service does not do, a few words each, as users have to know.
        has_sessions: Whether it has sessions; where it has none, a lease holds a gate (`providers.gates`).
    """

    has_sessions: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[tuple[str, ...]] = ()

    name: Name
    type: str
    backend: Name = ""
    endpoint: Url
    credentials: Literal["user", "gateway", "shared"] = "user"
    key_file: AbsolutePath | None = None
    session: Literal["job", "task"] = "job"
    exclusive: bool = False
    max_leases: Number | None = None
    starts_at_once: AtOnce = 10
    access_rules: AccessRules = AccessRules()
    attributes: Annotated[
        Attributes,
        msgspec.Meta(
            description='a table such as {qubits = 20, processor = "crystal"}', extra={"table": True}
        ),
    ] = Attributes()
    api_key: Secret | None = None

    def __post_init__(self) -> None:
        """Use the QPU's name for the backend by default."""
        if not self.backend:
            msgspec.structs.force_setattr(self, "backend", self.name)

    @property
    def iam_endpoint(self) -> str:
        """The base URL that turns an API key into a token; empty where the key is the token."""
        return ""

    @property
    def instance(self) -> str:
        """The service instance (a CRN) that pays; made up for IBM's clients where the service has none."""
        return f"crn:v1:local:private:{self.type}:local:a/{self.name}:{self.name}::"

    @property
    def task_timeout(self) -> int | None:
        """Seconds of QPU time that one task may take; None leaves it to the service."""
        return None

    @property
    def max_ttl(self) -> int:
        """The longest life of a session in seconds, whatever the job's time limit."""
        return MAX_TTL

    @property
    def limit(self) -> int | None:
        """How many jobs may have it at once; None: any number."""
        return 1 if self.exclusive else self.max_leases

    @property
    def through_gateway(self) -> bool:
        """Whether jobs reach it through the gateway, which alone has the key and opens all sessions."""
        return self.credentials == "gateway"

    @property
    def needs_user_key(self) -> bool:
        """Whether its sessions are opened with the key of the job's user."""
        return self.credentials == "user"

    @property
    def key_files(self) -> tuple[Path, ...]:
        """The files with the admin's keys: each is only for the user that reads it."""
        return () if self.needs_user_key or self.key_file is None else (self.key_file,)

    def key(self, user_key: Secret | None = None) -> Secret:
        """Return the key that opens this QPU's sessions.

        Args:
            user_key: The user's own, if the job has one.

        Raises:
            RequestError: The QPU needs the user's own key, and there is none.
            ConfigError: The admin's key cannot be read, or other users can read it.
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
        """Return how the QPU is reached; see `key` for the argument and the errors."""
        return Access(
            type=self.type,
            backend=self.backend,
            endpoint=self.endpoint,
            iam_endpoint=self.iam_endpoint,
            instance=self.instance,
            api_key=self.key(user_key),
        )

    def seen_by_jobs(self, gateway: str) -> QpuConfig:
        """Return the QPU as jobs see it that reach it through the gateway.

        Args:
            gateway: The gateway's base URL.
        """
        raise NotImplementedError

    def warnings(self) -> list[str]:
        """Return the insecure settings of this QPU, a sentence each."""
        found = in_the_clear(self.name, self.endpoint, self.iam_endpoint)
        if self.credentials == "shared":
            found.append(
                f'{self.name}: credentials = "shared" is insecure: every job that names the QPU gets the key.'
            )
        return found


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The admin's configuration.

    Attributes:
        path: Its file.
        journal: The record of all leases, on a local disk.
        keep: Seconds after which an ended lease is deleted from the journal.
        log: The log file; None logs to stderr.
        log_level: The least severe event that is logged.
        audit_syslog: The socket of the system's log, such as /dev/log, for the audit: each grant, submission
            and refusal, with its user. The log file has the audit in any case.
        acquire_on: What acquires a session: the option `--qpu`, or only a gres (`--qpu` alone then binds).
        slurm: See `SlurmConfig`.
        outage: See `OutageConfig`.
        gateway: See `GatewayConfig`; None: hooks and steps use the service directly.
        qrmi_config: An upstream qrmi_config.json that has the QPUs, all of them behind the gateway; None: the
            file itself has them.
        qpus: The QPUs by name, in the file's order; none where this process may not read `qrmi_config`.
        budgets: See `BudgetsConfig`.
        warnings: Skipped resources and insecure settings, a sentence each.
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
    qrmi_config: AbsolutePath | None = None
    qpus: dict[str, QpuConfig]
    budgets: BudgetsConfig = BudgetsConfig()
    warnings: tuple[str, ...] = ()

    @property
    def step_patience(self) -> int:
        """Seconds for which a step waits. It waits as its user, and only root can read a shared key."""
        shared = any(qpu.credentials == "shared" for qpu in self.qpus.values())
        return 0 if shared else self.outage.step_patience

    def qpu(self, name: str) -> QpuConfig:
        """Return a QPU by its name.

        Raises:
            RequestError: There is no such QPU. The message lists all QPUs.
            ConfigError: See `require_qpus`.
        """
        self.require_qpus()
        try:
            return self.qpus[name]
        except KeyError:
            raise RequestError(
                f"There is no QPU {name[:64]!r} here. Choose one of: {', '.join(self.qpus)}."
            ) from None

    def require_qpus(self) -> None:
        """Make sure that the QPUs are known to this process.

        Raises:
            ConfigError: They stand in `qrmi_config`, which it cannot read.
        """
        if not self.qpus:
            raise ConfigError(
                f"{self.qrmi_config}: cannot be read here, so the QPUs are not known. "
                "Run this on the gateway's host, as root or as the gateway's user."
            )


def in_the_clear(name: str, *urls: str) -> list[str]:
    """Return what is insecure about URLs that carry credentials, a sentence each."""
    return [
        f"{name}: {url} is insecure: http sends credentials unencrypted. Use https."
        for url in urls
        if url.startswith("http:") and not _LOOPBACK.match(url)
    ]
