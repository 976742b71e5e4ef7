# SPDX-License-Identifier: Apache-2.0
"""A job's QPU variables: written by `qpu-slurm job-env`, read by task_runner and the Python API.

No other module knows the variables' names. They are those that programs for Qiskit and QRMI read, so that
such programs run in a job unchanged:

- `QRMI_JOB_QPU_RESOURCES` and `QRMI_JOB_QPU_TYPES` (before: `SLURM_JOB_QPU_…`) list the job's QPUs;
- `<qpu>_QRMI_…` say how each is reached, and which session the job holds on it;
- `IQM_…` are read by iqm-client, which knows one QPU only: the job's first one of an IQM Server;
- `QISKIT_IBM_…` are read by `QiskitRuntimeService()`, which knows one service only: that of the job's first
  other QPU. `IAM_URL`, `GLOBAL_SEARCH_URL` and `GLOBAL_CATALOG_URL` are set where they are not IBM's public
  ones.

A job that has no session (yet) has no variable for it at all: QRMI would take an empty one for a session that
it holds. `<qpu>_QRMI_QPU_SLURM_SESSION` says whether a task may open one; a job that is only bound has
neither.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from qpu_slurm.errors import NoLeaseError, RequestError
from qpu_slurm.job.absence import why_no_qpu
from qpu_slurm.names import STEP_MARK, SessionOption
from qpu_slurm.providers.base import Access
from qpu_slurm.qpu_option import ANY, is_wish
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from qpu_slurm.config import QpuConfig


class _Asked(Protocol):
    """A QPU of a job, however it is had."""

    @property
    def asked(self) -> str | None:
        """See `JobQpu.asked`."""


Q = TypeVar("Q", bound=_Asked)

_RESOURCES = ("QRMI_JOB_QPU_RESOURCES", "SLURM_JOB_QPU_RESOURCES")
_TYPES = ("QRMI_JOB_QPU_TYPES", "SLURM_JOB_QPU_TYPES")
_TRUST = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
"""What names the authorities that programs trust: Python's requests, and OpenSSL with all that it serves. The
plugin sets neither in a step whose user has set one (plugin/remote.c)."""

NOTICE = "QRMI_JOB_NOTICE"
"""A sentence for the job's user. The plugin prints it as a step begins (plugin/remote.c)."""

_STEP = "QPU_SLURM_STEP"
"""Which step of the job this is, where the plugin reports the step's end."""

_SERVICES = {
    "ibm-quantum-compute-service": "QRMI_IBM_QCS_",
    "qiskit-runtime-service": "QRMI_IBM_QRS_",
    "iqm-server": "QRMI_IBM_QCS_",
}
"""The resource types that we know, and the prefixes of what we read. The first two are names of one service:
a job gets the variables of both, since a client reads those of one only. IQM's QPUs are reached through the
gateway, which answers IBM's words, too: task_runner needs no other variables for them."""

_IQM = "iqm-server"
_IQM_TOKEN = "QRMI_IQM_ISA_TOKEN"  # noqa: S105 - a variable's name

_OF_SERVICE = {
    "endpoint": "ENDPOINT",
    "iam_endpoint": "IAM_ENDPOINT",
    "api_key": "IAM_APIKEY",
    "instance": "SERVICE_CRN",
    "mode": "SESSION_MODE",
    "max_ttl": "SESSION_MAX_TTL",
}
"""The attributes of a `JobQpu` whose variable is `<qpu>_<prefix><this>`."""

_OF_QPU = {
    "session_id": "QRMI_JOB_ACQUISITION_TOKEN",
    "task_timeout": "QRMI_JOB_TIMEOUT_SECONDS",
    "job_id": "QRMI_JOB_ID",
    "user_id": "QRMI_JOB_UID",
    "hold": "QRMI_QPU_SLURM_SESSION",
    "tag": "QRMI_QPU_SLURM_TAG",
    "asked": "QRMI_QPU_SLURM_ASKED",
    "backend": "QRMI_QPU_SLURM_BACKEND",
    "search_endpoint": "QRMI_QPU_SLURM_SEARCH_ENDPOINT",
    "catalog_endpoint": "QRMI_QPU_SLURM_CATALOG_ENDPOINT",
    "iqm_endpoint": "QRMI_IQM_ISA_ENDPOINT",
}
"""The attributes of a `JobQpu` whose variable is `<qpu>_<this>`; set where there is a value. Six are our
own: qrmi takes a QPU's name for the backend's, and knows of no session that is not there yet."""

_OVERRIDES = {"session_id": "SESSION_ID", "task_timeout": "TIMEOUT_SECONDS"}
"""As `_OF_SERVICE`, for what a user may set to override `_OF_QPU`: qrmi reads these first. Never written."""

_REQUIRED = ("endpoint", "iam_endpoint", "api_key", "instance")
_NUMBERS = ("max_ttl", "task_timeout", "job_id", "user_id")
_HOLDS = ("job", "task")
_MAX_DIGITS = 10

_IBM_IAM = "https://iam.cloud.ibm.com"

_PUBLIC = re.compile(r"(https)://(?:[a-z0-9-]+\.)?quantum\.(cloud\.ibm\.com)/api/v1/?")
"""IBM's public service: qiskit-ibm-runtime is told the end of the host's name, and adds region and path."""

_PRINTABLE = re.compile(r"[\x20-\x7e]*")


class JobQpu(msgspec.Struct, frozen=True, kw_only=True):
    """One QPU of a job.

    Attributes:
        name: As the user named it.
        type: The resource type, in QRMI's words.
        backend: The service's name of it.
        endpoint: The service's base URL, its version included.
        iam_endpoint: The base URL that turns an API key into a token.
        search_endpoint: Global Search, where it is not IBM's public one.
        catalog_endpoint: The Global Catalog, where it is not IBM's public one.
        iqm_endpoint: The URL that iqm-client and QRMI need, for a QPU of an IQM Server.
        instance: The service instance (a CRN) that pays.
        api_key: The credential that the job uses.
        mode: The session's mode: `dedicated` or `batch`.
        max_ttl: Seconds that a session may live at most.
        task_timeout: Seconds of QPU time that one task may take; None leaves it to the service.
        job_id: The job; of a heterogeneous job, the leader. qrmi reads it, and `user_id`, where a service on
            the cluster's own premises asks who comes.
        user_id: The job's user.
        hold: From when on the job holds a session: its start (`job`), or its first task (`task`). Either way,
            a task gets another session where the last one takes no more. None: it opens none.
        tag: What the job's tasks are tagged with, so that they are told from all others of the account; None
            where the job's hooks did not say.
        asked: The wish that this QPU was chosen for, as the user wrote it in `--qpu`; None for a QPU that the
            user named.
        session_id: The session that the job had when the step started; None if it had none.
    """

    name: str
    type: str = "ibm-quantum-compute-service"
    backend: str
    endpoint: str
    iam_endpoint: str
    search_endpoint: str | None = None
    catalog_endpoint: str | None = None
    iqm_endpoint: str | None = None
    instance: str
    api_key: Secret
    mode: str = "dedicated"
    max_ttl: int = 28_800
    task_timeout: int | None = None
    job_id: int | None = None
    user_id: int | None = None
    hold: SessionOption | None = None
    tag: str | None = None
    asked: str | None = None
    session_id: str | None = None

    @classmethod
    def bind(
        cls,
        qpu: QpuConfig,
        *,
        api_key: Secret,
        session_id: str | None,
        hold: SessionOption | None = None,
        tag: str | None = None,
        asked: str | None = None,
    ) -> JobQpu:
        """Bind a job to a configured QPU; without a session and a hold, it may know what the QPU is like."""
        shared: dict[str, Any] = {
            name: getattr(qpu, name, None)
            for name in cls.__struct_fields__
            if name not in {"api_key", "hold", "tag", "asked", "session_id", "job_id", "user_id"}
        }
        return cls(**shared, api_key=api_key, hold=hold, tag=tag, asked=asked, session_id=session_id)

    def access(self) -> Access:
        """Say how the QPU is reached: in the words of IBM's cloud, which the gateway speaks for all kinds."""
        fields = {name: getattr(self, name) for name in Access.__struct_fields__}
        return Access(**fields | {"type": next(iter(_SERVICES))})

    def may_execute(self) -> None:
        """Make sure that tasks of the job have a session to run in, or may open one.

        Raises:
            NoLeaseError: The job is only bound to the QPU.
        """
        if self.session_id is None and self.hold is None:
            raise NoLeaseError(
                f"This job may transpile for {self.name}, but holds no session to execute in. "
                f"Submit it with --qpu={self.name} --gres=qpu:1."
            )


def to_environ(qpus: Sequence[JobQpu], authorities: Path | None = None) -> dict[str, str]:
    """Return the variables that tell a job of its QPUs.

    Args:
        qpus: The job's QPUs, in the order in which the user named them. `QiskitRuntimeService()` gets the
            first one's service.
        authorities: The file of those that the job's programs have to trust; None: whom they trust anyway.

    Raises:
        RequestError: A value cannot be a variable's, such as an API key with a line break in it.
    """
    environ = dict(variable for qpu in qpus for variable in _variables(qpu))
    if qpus:
        environ |= dict.fromkeys(_RESOURCES, ",".join(qpu.name for qpu in qpus))
        environ |= dict.fromkeys(_TYPES, ",".join(qpu.type for qpu in qpus))
    for qpu in reversed(qpus):  # the first of each kind is the last to be written
        environ |= _iqm_variables(qpu) if qpu.type == _IQM else _qiskit_variables(qpu)
    environ |= trust_of(authorities)
    for name, value in environ.items():
        if not _PRINTABLE.fullmatch(value):
            raise RequestError(
                f"{name} would hold more than printable ASCII: check the API key for stray characters."
            )
    return environ


def trust_of(authorities: Path | None) -> dict[str, str]:
    """Return the variables that name the file of those whom a job's programs have to trust, if any."""
    return {} if authorities is None else dict.fromkeys(_TRUST, str(authorities))


def from_environ(environ: Mapping[str, str]) -> dict[str, JobQpu]:
    """Read a job's QPUs by name, whether our plugin or upstream's has set the variables.

    QPUs of a type that we do not know are left out.

    Raises:
        NoLeaseError: There is none.
        RequestError: A variable that belongs to one is missing or makes no sense.
    """
    delimiter = environ.get("QRMI_LIST_DELIMITER") or ","  # upstream lets its users choose another
    names, types = ((_first(environ, lists) or "").split(delimiter) for lists in (_RESOURCES, _TYPES))
    if len(names) != len(types):
        raise RequestError(f"{_RESOURCES[0]} and {_TYPES[0]} name a different number of QPUs.")
    qpus = {
        name: _read(environ, name, type_)
        for name, type_ in zip(names, types, strict=True)
        if type_ in _SERVICES and (type_ != _IQM or f"{name}_{_SERVICES[type_]}ENDPOINT" in environ)
    }
    if not qpus:
        raise NoLeaseError(why_no_qpu(environ))
    return qpus


def step_mark(environ: Mapping[str, str]) -> str | None:
    """Return what tells this step from all others; None where its end is not reported (plugin/remote.c)."""
    mark = environ.get(_STEP, "")
    return mark if STEP_MARK.fullmatch(mark) else None


def find(environ: Mapping[str, str], name: str | None = None) -> JobQpu:
    """Return the job's QPU of that name; without a name, its only one.

    Raises:
        NoLeaseError: The job has none of that name, or several and no name was given.
        RequestError: See `from_environ`.
    """
    qpus = from_environ(environ)
    if name is None and len(qpus) == 1:
        return next(iter(qpus.values()))
    if name is None or name not in qpus:
        problem = (
            "This job has several QPUs; name one" if name is None else f"This job has no QPU {name[:64]!r}"
        )
        raise NoLeaseError(f"{problem}. It has: {', '.join(qpus)}.")
    return qpus[name]


def _variables(qpu: JobQpu) -> Iterator[tuple[str, str]]:
    """Write one QPU's own variables."""
    if qpu.type == _IQM:
        yield f"{qpu.name}_{_IQM_TOKEN}", _text(qpu.api_key)
    for attribute, suffix in _OF_SERVICE.items():
        for prefix in dict.fromkeys(_SERVICES.values()):
            yield f"{qpu.name}_{prefix}{suffix}", _text(getattr(qpu, attribute))
    for attribute, suffix in _OF_QPU.items():
        value = getattr(qpu, attribute)
        if value is not None and (attribute, value) != ("backend", qpu.name):
            yield f"{qpu.name}_{suffix}", _text(value)


def _iqm_variables(qpu: JobQpu) -> dict[str, str]:
    """Write what iqm-client reads."""
    return {
        "IQM_SERVER_URL": qpu.iqm_endpoint or "",
        "IQM_TOKEN": qpu.api_key.reveal(),
        "IQM_QUANTUM_COMPUTER": qpu.backend,
    }


def _qiskit_variables(qpu: JobQpu) -> dict[str, str]:
    """Write what qiskit-ibm-runtime reads.

    It takes an endpoint as it is only if `experimental` stands in it: the emulator serves one that does.
    """
    public = _PUBLIC.fullmatch(qpu.endpoint)
    variables = {
        "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        "QISKIT_IBM_TOKEN": qpu.api_key.reveal(),
        "QISKIT_IBM_INSTANCE": qpu.instance,
        "QISKIT_IBM_URL": "://".join(public.groups()) if public else qpu.endpoint,
        "IAM_URL": None if public and qpu.iam_endpoint == _IBM_IAM else qpu.iam_endpoint,
        "GLOBAL_SEARCH_URL": qpu.search_endpoint,
        "GLOBAL_CATALOG_URL": qpu.catalog_endpoint,
    }
    return {name: value for name, value in variables.items() if value is not None}


def _read(environ: Mapping[str, str], name: str, type_: str) -> JobQpu:
    """Read one QPU's own variables: those of its type's service before those of the other name."""
    prefixes = sorted(_SERVICES.values(), key=_SERVICES[type_].__ne__)
    values: dict[str, Any] = {"name": name, "type": type_, "backend": name}
    for attribute in JobQpu.__struct_fields__:
        suffix = _OF_SERVICE.get(attribute) or _OVERRIDES.get(attribute)
        variables = [f"{name}_{prefix}{suffix}" for prefix in prefixes if suffix]
        variables += [f"{name}_{_OF_QPU[attribute]}"] if attribute in _OF_QPU else []
        text = _first(environ, variables)
        if text and attribute == "hold" and text not in _HOLDS:
            raise RequestError(f"{variables[0]} is {text[:64]!r}; expected {' or '.join(_HOLDS)}.")
        if text and attribute in _NUMBERS:
            if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
                raise RequestError(f"{variables[0]} is {text[:64]!r}; expected a whole number.")
            values[attribute] = int(text)
        elif text:
            values[attribute] = Secret(text) if attribute == "api_key" else text
        elif attribute in _REQUIRED:
            raise RequestError(
                f"{variables[0]} is not set, though the job has the QPU {name}: was its environment cleared?"
            )
    return JobQpu(**values)


def _first(environ: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return the first variable that is set to something."""
    return next((environ[name] for name in names if environ.get(name)), None)


def _text(value: str | int | Secret) -> str:
    return value.reveal() if isinstance(value, Secret) else str(value)


def choose(qpus: Mapping[str, Q], name: str | None) -> Q:
    """Choose one of a job's QPUs.

    Args:
        qpus: The job's QPUs by name, in the user's order.
        name: The QPU's name; or a wish as in `--qpu`, with or without its terms: the QPU that was chosen for
            it. `any` is also a job's only QPU. None is the first one.

    Raises:
        NoLeaseError: There is none of that name, none that was chosen for it, or several.
    """
    if name is None:
        return next(iter(qpus.values()))
    if name in qpus:
        return qpus[name]
    has = ", ".join(qpus)
    if not is_wish(name):
        raise NoLeaseError(f"This job has no QPU {name[:64]!r}, only {has}.")
    found = [qpu for qpu in qpus.values() if qpu.asked is not None and name in {qpu.asked, _pool(qpu.asked)}]
    if not found:
        alternatives = name.split("|")
        found = [qpu for own, qpu in qpus.items() if name == ANY or own in alternatives]
    if len(found) == 1:
        return found[0]
    many = "several QPUs that it could be" if found else "no QPU that was chosen for it"
    raise NoLeaseError(f"{name[:64]}: this job has {many}. Name one: it has {has}.")


def _pool(wish: str) -> str:
    return wish.partition(":")[0]
