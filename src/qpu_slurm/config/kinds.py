# SPDX-License-Identifier: Apache-2.0
"""The kinds of QPU, by their type: each with what it needs, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

import msgspec

from qpu_slurm.config.model import (
    IBM_ENDPOINT,
    IBM_IAM_ENDPOINT,
    MAX_TTL,
    AbsolutePath,
    Crn,
    Duration,
    QpuConfig,
    SessionTtl,
    Url,
    in_the_clear,
)
from qpu_slurm.config.private import read_key
from qpu_slurm.errors import ConfigError
from qpu_slurm.providers.base import Access
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from qpu_slurm.providers.ibm_system.access import SystemAccess
    from qpu_slurm.providers.iqm.access import IqmAccess

CLOUD: Final = "ibm-quantum-compute-service"
"""The type that a QPU has whose table names none."""

_SECONDS: Final = 10_800

IqmName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"\A(?:[A-Za-z0-9][A-Za-z0-9:._-]{0,63})?\Z",
        description='the server\'s alias of the QPU, such as "garnet" or "garnet:mock"',
    ),
]


class IbmQpu(QpuConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU of IBM's, wherever it is.

    Attributes:
        iam_endpoint: The base URL that turns an API key into a token.
        instance: The service instance (a CRN) that pays.
        task_timeout: Seconds of QPU time that one task may take; None leaves it to the service.
    """

    iam_endpoint: Url = IBM_IAM_ENDPOINT
    instance: Crn
    task_timeout: Duration | None = None


class CloudQpu(IbmQpu, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU that speaks as those in IBM's cloud do; the gateway does for all kinds of QPUs.

    Attributes:
        endpoint: The service's base URL, its version included.
        search_endpoint: Global Search, where it is not IBM's public one.
        catalog_endpoint: The Global Catalog, where it is not IBM's public one.
        mode: The session's mode; an account of the Open plan can open only `batch`.
        max_ttl: The longest life of a session in seconds, whatever the job's time limit.
    """

    endpoint: Url = IBM_ENDPOINT
    search_endpoint: Url | None = None
    catalog_endpoint: Url | None = None
    mode: Literal["dedicated", "batch"] = "dedicated"
    max_ttl: SessionTtl = MAX_TTL

    def access(self, user_key: Secret | None = None) -> Access:
        """Return how the QPU is reached; see `key` for the argument and the errors."""
        return msgspec.structs.replace(super().access(user_key), mode=self.mode)

    def seen_by_jobs(self, gateway: str) -> CloudQpu:
        """Return the QPU as jobs see it through the gateway; see `QpuConfig`."""
        return msgspec.structs.replace(self, **_gateways(gateway))


class ComputeServiceQpu(CloudQpu, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU of the IBM Quantum Compute Service, IBM's cloud.

    Attributes:
        type: The second is an older name of the first.
    """

    type: Literal["ibm-quantum-compute-service", "qiskit-runtime-service"] = CLOUD


class QuantumSystemQpu(IbmQpu, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU on a centre's own premises, behind the IBM Quantum System API.

    Its tasks' inputs and results travel through object storage, which only the gateway has the key for.

    Attributes:
        credentials: The admin's, which only the gateway has. The API has no tenants: a job that had the key
            would reach every other job's tasks.
        task_timeout: Seconds of QPU time that one task may take; the API asks for a number.
        s3_endpoint: The storage's base URL, S3-compatible, as the gateway reaches it.
        s3_endpoint_for_qsapi: The same, as the QPU's service reaches it; None if that is no other.
        s3_bucket: The bucket.
        s3_region: Its region.
        s3_access_key_id: The name of the key that opens it.
        s3_key_file: The file with that key, on the gateway's host only.
        s3_secret: That key, if an upstream configuration contains it.
    """

    has_sessions: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("s3_key_file",)
    limits: ClassVar[tuple[str, ...]] = (
        "no sessions",
        "sampler and estimator only",
        "tasks that wait count as running",
    )

    type: Literal["ibm-quantum-system"]
    credentials: Literal["gateway"] = "gateway"
    task_timeout: Duration | None = _SECONDS
    s3_endpoint: Url
    s3_endpoint_for_qsapi: Url | None = None
    s3_bucket: Annotated[
        str,
        msgspec.Meta(
            pattern=r"\A[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z",
            description="the name of a bucket: 3 to 63 lower-case letters, digits, dots or hyphens",
        ),
    ]
    s3_region: Annotated[
        str, msgspec.Meta(pattern=r"\A[A-Za-z0-9-]{1,64}\Z", description='a region such as "us-east-1"')
    ] = "us-east-1"
    s3_access_key_id: Annotated[
        str,
        msgspec.Meta(
            pattern=r"\A[A-Za-z0-9._-]{1,128}\Z",
            description="the id of an access key: letters, digits, dots, hyphens or underscores",
            extra={"unquoted": True},
        ),
    ]
    s3_key_file: AbsolutePath | None = None
    s3_secret: Secret | None = None

    @property
    def key_files(self) -> tuple[Path, ...]:
        """The files with the admin's keys; see `QpuConfig`."""
        return (*super().key_files, *filter(None, [self.s3_key_file]))

    def access(self, user_key: Secret | None = None) -> SystemAccess:
        """Return how the QPU is reached; see `key` for the argument and the errors."""
        # A hook and a step need none of it.
        from qpu_slurm.providers.ibm_system.access import Storage, SystemAccess  # noqa: PLC0415

        shared = super().access(user_key)
        return SystemAccess(
            **{name: getattr(shared, name) for name in Access.__struct_fields__},
            storage=Storage(
                endpoint=self.s3_endpoint,
                service_endpoint=self.s3_endpoint_for_qsapi,
                bucket=self.s3_bucket,
                region=self.s3_region,
                access_key_id=self.s3_access_key_id,
                secret=self._storage_key(),
            ),
        )

    def _storage_key(self) -> Secret:
        """Return the key of the storage; see `access` for the errors."""
        if self.s3_secret is not None:
            return self.s3_secret
        if self.s3_key_file is None:
            raise ConfigError(f"[[qpu]] {self.name!r}: its storage needs an s3_key_file.")
        return read_key(self.s3_key_file)

    def seen_by_jobs(self, gateway: str) -> ComputeServiceQpu:
        """Return the QPU as jobs see it: to them, the gateway makes it look like one in the cloud."""
        shared = {name: getattr(self, name) for name in IbmQpu.__struct_fields__ if name != "type"}
        return ComputeServiceQpu(**shared | _gateways(gateway))

    def warnings(self) -> list[str]:
        """Return the insecure settings of this QPU, a sentence each."""
        storage = filter(None, (self.s3_endpoint, self.s3_endpoint_for_qsapi))
        return [*super().warnings(), *in_the_clear(self.name, *storage)]


class IqmOfJobs(CloudQpu, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU of an IQM Server, as jobs see it.

    Attributes:
        iqm_endpoint: The gateway's URL, as iqm-client and QRMI want it.
    """

    type: Literal["iqm-server"]
    backend: IqmName = ""
    iqm_endpoint: Url


class IqmServerQpu(QpuConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A QPU behind an IQM Server, a centre's own or IQM's.

    Attributes:
        backend: The server's alias of it, such as `garnet` or `garnet:mock`; by default the QPU's name.
        endpoint: The server's URL, as for iqm-client: without a version.
        credentials: The admin's, which only the gateway has. The server's tokens tell no jobs apart: one that
            had the token would reach every other job's tasks.
        use_timeslot: Whether tasks wait for a timeslot that the account has booked: `always`, `never`, or as
            each task's submitter wants (`user`).
        ledger: The directory in which the gateway writes down its tasks, which the server does not list.
    """

    has_sessions: ClassVar[bool] = False
    limits: ClassVar[tuple[str, ...]] = (
        "no sessions",
        "circuits only",
        "a submission whose answer is lost cannot be found",
    )

    type: Literal["iqm-server"]
    backend: IqmName = ""
    credentials: Literal["gateway"] = "gateway"
    use_timeslot: Literal["user", "always", "never"] = "user"
    ledger: AbsolutePath = Path("/var/lib/qpu_slurm/iqm")

    @staticmethod
    def alias_of(name: str) -> str:
        """Return the alias that QRMI takes a QPU's name for: it reads the last `_` as `:`."""
        return ":".join(name.rsplit("_", 1))

    def access(self, user_key: Secret | None = None) -> IqmAccess:
        """Return how the QPU is reached; see `key` for the argument and the errors."""
        from qpu_slurm.providers.iqm.access import IqmAccess  # noqa: PLC0415 - likewise

        shared = super().access(user_key)
        return IqmAccess(
            **{name: getattr(shared, name) for name in Access.__struct_fields__}, ledger=str(self.ledger)
        )

    def seen_by_jobs(self, gateway: str) -> IqmOfJobs:
        """Return the QPU as jobs see it: the gateway speaks IQM's dialect for it, and IBM's."""
        shared = {name: getattr(self, name) for name in QpuConfig.__struct_fields__}
        return IqmOfJobs(**shared | _gateways(gateway), instance=self.instance, iqm_endpoint=gateway)


KINDS: Final[dict[str, type[QpuConfig]]] = {
    CLOUD: ComputeServiceQpu,
    "qiskit-runtime-service": ComputeServiceQpu,
    "ibm-quantum-system": QuantumSystemQpu,
    "iqm-server": IqmServerQpu,
}
"""The kinds that there are."""

NOT_YET: Final = ("pasqal-local", "pasqal-cloud", "alice-bob-felis", "oqtopus")
"""QRMI's other types, which have no provider here."""


def _gateways(url: str) -> dict[str, str]:
    return {
        # qiskit-ibm-runtime takes a URL as it is only if it contains `experimental`.
        "endpoint": f"{url}/experimental/api/v1",
        "iam_endpoint": url,
        "search_endpoint": url,
        "catalog_endpoint": f"{url}/catalog",
    }
