# SPDX-License-Identifier: Apache-2.0
"""What `qpu-slurm check` asks the quantum services; what is wrong with an account is reported once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm import providers
from qpu_slurm.admin.check._accounts import seen
from qpu_slurm.admin.check._diagnoses import found
from qpu_slurm.admin.check._finding import Finding, fine
from qpu_slurm.errors import (
    ConfigError,
    NotFoundError,
    QpuSlurmError,
    ServiceError,
    UnavailableError,
    sentences,
)
from qpu_slurm.system.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.providers.base import QpuStatus
    from qpu_slurm.system.secret import Secret

_ANSWER_SECONDS = 5.0
_UNAUTHORIZED = (400, 401)
"""What IAM answers to a key that it does not know, and the service to one that it does not take."""


def check(config: Config, user_key: Secret | None, *, here: bool) -> Iterator[Finding]:
    """Ask for each QPU, as far as its key is here and can be read.

    Args:
        config: What the admin wrote.
        user_key: The key of the user who runs this, for QPUs that are used with users' own keys.
        here: Whether this is the gateway's host, or there is none.
    """
    wrong: dict[tuple[object, ...], tuple[Finding, list[str]]] = {}
    for qpu in config.qpus.values():
        if why := _not_asked(qpu, user_key, here=here):
            yield fine(qpu.name, f"not asked: {why}")
            continue
        account = (qpu.endpoint, qpu.iam_endpoint, qpu.instance, qpu.key_file)
        if account in wrong:
            wrong[account][1].append(qpu.name)
            continue
        try:
            yield from _asked(qpu, user_key)
        except NotFoundError as error:  # of this QPU alone
            yield _wrong(config, qpu, error)
        except ConfigError:
            pass  # the key's own finding says it
        except QpuSlurmError as error:
            wrong[account] = _wrong(config, qpu, error), [qpu.name]
    for finding, names in wrong.values():
        yield Finding(finding.level, ", ".join(names), finding.text, finding.remedy, finding.diagnosis)


def _not_asked(qpu: QpuConfig, user_key: Secret | None, *, here: bool) -> str:
    if qpu.through_gateway and not here:
        return "only the gateway has its key (check there as well)"
    if qpu.credentials == "shared" and not here and qpu.key_file and not seen(qpu.key_file):
        return "its key is not on this host (the gateway's host and the nodes have it)"
    if qpu.needs_user_key and user_key is None:
        return "it is used with users' own keys (export QISKIT_IBM_TOKEN to ask)"
    return ""


def _asked(qpu: QpuConfig, user_key: Secret | None) -> Iterator[Finding]:
    service = providers.connect(qpu.access(user_key), deadline=Deadline.after(_ANSWER_SECONDS))
    yield _status(qpu, service.status())
    slots = service.slots()
    if slots is not None and (qpu.limit is None or qpu.limit > slots):
        yield found("more leases than slots", qpu.name, slots=slots)


def _status(qpu: QpuConfig, status: QpuStatus) -> Finding:
    if not status.online:
        return found("not available", qpu.name, why=status.reason)
    return fine(qpu.name, f"is online; {status.queue_length} tasks wait")


def _wrong(config: Config, qpu: QpuConfig, error: QpuSlurmError) -> Finding:
    why = sentences(error.message if isinstance(error, ServiceError) else str(error))
    if isinstance(error, UnavailableError):
        return found("service unreachable", qpu.name, endpoint=qpu.endpoint, why=why, path=config.path)
    if isinstance(error, ServiceError) and error.status in _UNAUTHORIZED:
        if qpu.needs_user_key:
            return found("user's key refused", qpu.name, why=why)
        return found("key refused", qpu.name, why=why, key=qpu.key_file or config.path)
    return found("service refuses", qpu.name, why=why, path=config.path)
