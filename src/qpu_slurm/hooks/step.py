# SPDX-License-Identifier: Apache-2.0
"""What the SPANK plugin runs for steps: `qpu-slurm job-env` when one starts, `step-end` when it is over.

Both run as root on the compute node; job-env also runs as the job's user. If every QPU is behind the gateway,
the gateway answers everything. For that request, the process becomes the job's user, for good. The client in
C (plugin/client) does the same in less time.

Otherwise, the job's AdminComment names the job's QPUs, and the sessions that it began with. The node's own
configuration says how QPUs are reached. Nothing that a user can write is trusted. The gateway returns the
keys of the QPUs behind it, with the job's current sessions.

The plugin reads lines `NAME=value`; or one line `error: sentence`, which ends the job; or, with the exit code
`NO_ANSWER_YET`, one line `wait: sentence`. Then the plugin runs it again and again, as the job's user, for as
long as the admin's `step_patience` says. So job-env itself asks everyone once.

The same request reports the start of the step to the gateway. step-end reports its end, and cancels the tasks
that a failed step has left on the QPU. No step and no job waits for it.

A heterogeneous job is one job: each component gets the QPUs of all.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from qpu_slurm.errors import (
    ConfigError,
    JournalError,
    QpuSlurmError,
    RequestError,
    SlurmAwayError,
    SlurmError,
    UnavailableError,
)
from qpu_slurm.job.variables import to_environ, trust_of
from qpu_slurm.lifecycle.variables import Opened, handover, of_step
from qpu_slurm.names import STEP_TAG
from qpu_slurm.slurm.admin_comment import AdminComment
from qpu_slurm.slurm.query import connect
from qpu_slurm.slurm.script import asked_of_sbatch, batch_script
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.gateway.client import GatewayBroker
    from qpu_slurm.gateway.messages import Keys
    from qpu_slurm.job.variables import JobQpu
    from qpu_slurm.providers.base import Provider
    from qpu_slurm.slurm.job import JobRecord
    from qpu_slurm.slurm.query import Query

USER_KEY = "QPU_SLURM_API_KEY"
"""The variable in which the plugin passes the user's own credential."""

_SECONDS = 13.0
"""What all of it may take: the plugin (plugin/question.c) ends a process that tasks wait for after 15 s."""

_SLURM_SECONDS = 5
"""What one question to Slurm may take; a heterogeneous job may need two. A busy slurmctld takes seconds."""

_NOBODYS_GROUP = 65_534
_NOT_FOUND = 404


class _OldGatewayError(Exception):
    """The gateway is of an older release, which returns keys only."""


NO_ANSWER_YET = os.EX_TEMPFAIL
"""The exit code of a job-env that has no answer yet (75, EX_TEMPFAIL of sysexits.h)."""


class Step(NamedTuple):
    """A step that starts.

    Attributes:
        step: Slurm's id of it: `batch`, `interactive` or a number.
        name: Its program.
        at: When the plugin saw it, in seconds since the epoch.
    """

    step: str
    name: str
    at: float


class Printed(NamedTuple):
    """What job-env prints for the plugin.

    Attributes:
        text: The lines.
        exit_code: 0, or `NO_ANSWER_YET`.
    """

    text: str
    exit_code: int = 0

    @classmethod
    def of(cls, error: QpuSlurmError) -> Self:
        """Return the sentence of an error, with the node if its cause lies there."""
        of_node = isinstance(error, ConfigError | SlurmError | UnavailableError)
        where = f"{os.uname().nodename}: " if of_node else ""
        waits = _passes(error)
        line = f"{'wait' if waits else 'error'}: {where}{' '.join(str(error).split())}\n"
        return cls(line, NO_ANSWER_YET if waits else 0)


def job_env(
    config: Config,
    job_id: int,
    environ: Mapping[str, str],
    *,
    step: Step | None = None,
    unasked: bool = False,
    user_id: int | None = None,
    query: Query | None = None,
) -> Printed:
    """Return what to print, and the exit code.

    Args:
        config: What the admin wrote, on this node.
        job_id: The job; of a heterogeneous job, any component.
        environ: Holds the user's own credential, where the plugin published one.
        step: What starts; None where somebody else tells.
        unasked: The job was submitted without the plugin, so nothing on the node says whether it has a QPU;
            if that cannot be found out, now or later, it starts without one.
        user_id: The job's user; None: as Slurm says.
        query: How Slurm is asked; by default what `config` says.

    Returns:
        Nothing for a job that has no QPU.
    """
    deadline = Deadline.after(_SECONDS)
    try:
        if _all_through_gateway(config):
            with suppress(_OldGatewayError):
                user_id = _user_of(config, job_id, query) if user_id is None else user_id
                lines = _ask_gateway(_gateway_as_user(config, user_id), job_id, step, deadline)
                if unasked and not lines:
                    return _lost_option(config, job_id)
                return Printed(lines and lines + _lines(trust_of(_authorities(config))))
        records = _records(config, job_id, query)
        left = handover(records)
    except QpuSlurmError as error:
        return Printed("") if unasked and not _passes(error) else Printed.of(error)
    try:
        if unasked and left == AdminComment():
            return _lost_option(config, job_id)
        qpus = _qpus(config, records, environ, step, deadline)
    except QpuSlurmError as error:
        return Printed.of(error)
    behind = any(config.qpu(qpu.name).through_gateway for qpu in qpus)
    return Printed(_lines(to_environ(qpus, _authorities(config) if behind else None)))


def _all_through_gateway(config: Config) -> bool:
    return config.gateway is not None and all(qpu.through_gateway for qpu in config.qpus.values())


def _ask_gateway(gateway: GatewayBroker, job_id: int, step: Step | None, deadline: Deadline) -> str:
    """Let the gateway answer everything."""
    started = None if step is None else (step.step, step.name, _seconds_since(step.at))
    try:
        # No patience here: the plugin asks again.
        return gateway.variables(job_id, started, seconds=min(5.0, max(0.5, deadline.left)), patience=0)
    except UnavailableError as error:
        if error.status == _NOT_FOUND:
            raise _OldGatewayError from error
        raise


def _lines(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def step_end(
    config: Config,
    job_id: int,
    step: str,
    at: float,
    *,
    environ: Mapping[str, str],
    cancel: str | None = None,
    user_id: int | None = None,
    query: Query | None = None,
) -> None:
    """Report the end of a step to the gateway, if there is one, and cancel the tasks that the step left.

    A task_runner that gets a signal cancels its task. One that is killed cannot: with `scancel --signal=TERM
    --full`, srun kills it at once. Its task would lock the QPU until the end of the job, and be billed.

    Args:
        config: What the admin wrote, on this node.
        job_id: The job; of a heterogeneous job, any component.
        step: Slurm's id of the step.
        at: When it ended, in seconds since the epoch.
        environ: Holds the user's own credential, where the plugin knows one.
        cancel: The step's mark, if it failed and may have left tasks.
        user_id: The job's user; None: as Slurm says.
        query: How Slurm is asked; by default what `config` says.

    Raises:
        SlurmError: Slurm does not answer, or does not know the job.
        UnavailableError: The gateway does not answer, or the service.
    """
    deadline = Deadline.after(_SECONDS)
    if _all_through_gateway(config):
        user_id = _user_of(config, job_id, query) if user_id is None else user_id
        _gateway_as_user(config, user_id).step_ended(job_id, step, _seconds_since(at), cancel or "")
        return
    records = _records(config, job_id, query)
    left_by_start = handover(records)
    left: list[Provider] = []
    if cancel is not None and left_by_start.sessions:
        # An ended job has lost its keys. Its tasks are cancelled with its sessions.
        with suppress(QpuSlurmError):
            left = _providers(config, records, environ, deadline)
    qpus = [config.qpus.get(name) for name in left_by_start.sessions]
    if any(qpu is not None and qpu.through_gateway for qpu in qpus):
        gateway = _gateway_as_user(config, records[0].user_id)
        gateway.step_ended(records[0].leader, step, _seconds_since(at))
    if left:
        _become(records[0].user_id)
    for provider in left:
        for task_id in provider.pending_tasks(f"{STEP_TAG}{cancel}"):
            provider.cancel_task(task_id)


def _providers(
    config: Config, records: Sequence[JobRecord], environ: Mapping[str, str], deadline: Deadline
) -> list[Provider]:
    """Return the providers of a job's QPUs, with the job's credentials, before any request."""
    from qpu_slurm.providers import connect as service_of  # noqa: PLC0415 - seldom needed

    bound = _qpus(config, records, environ, None, deadline)
    return [service_of(qpu.access(), deadline=deadline) for qpu in bound]


def _passes(error: QpuSlurmError) -> bool:
    """Return whether an error may pass: the prolog would wait for it, too."""
    return isinstance(error, UnavailableError | JournalError | SlurmAwayError)


def _user_of(config: Config, job_id: int, query: Query | None) -> int:
    """Return a job's user. A process that is not root can only ask for its own jobs."""
    return _records(config, job_id, query)[0].user_id if os.geteuid() == 0 else os.geteuid()


def _records(config: Config, job_id: int, query: Query | None) -> list[JobRecord]:
    """Query Slurm for all components of a job; the one that asks comes first."""
    slurm = msgspec.structs.replace(config.slurm, timeout=min(config.slurm.timeout, _SLURM_SECONDS))
    records = (query or connect(slurm)).components(job_id)
    if not records:
        raise SlurmError(f"Slurm does not know job {job_id}.")
    return sorted(records, key=lambda record: record.job_id != job_id)


def _lost_option(config: Config, job_id: int) -> Printed:
    """Refuse a job whose request for a QPU was not read, rather than let it run without one."""
    try:
        option = asked_of_sbatch(batch_script(config.slurm, job_id))
    except SlurmError:
        option = None
    if option is None:
        return Printed("")
    return Printed.of(
        RequestError(
            f"The script's #SBATCH --qpu={option} was not read: only sbatch reads such lines, and it did not"
            " submit this job. Use sbatch, or write into the request to slurmrestd (of Slurm 24.11 or newer):"
            f' "spank_environment": ["QPU_SLURM_QPU={option}"].'
        )
    )


def _qpus(
    config: Config,
    records: Sequence[JobRecord],
    environ: Mapping[str, str],
    step: Step | None,
    deadline: Deadline,
) -> list[JobQpu]:
    left = handover(records)
    if left.error:
        raise RequestError(left.error)
    qpus = {name: _configured(config, name) for name in left.sessions}
    user_key = Secret(environ[USER_KEY]) if environ.get(USER_KEY) else None
    # First, since the job's user cannot read the admin's shared keys.
    opened = {
        name: Opened(qpu.key(user_key), left.sessions[name])
        for name, qpu in qpus.items()
        if not qpu.through_gateway
    }
    if len(opened) < len(qpus):
        for name, job_key in _keys_from_gateway(config, records[0], step, deadline).items():
            opened[name] = Opened(job_key.key, job_key.session_id)
    return of_step(config, records, opened, qpus)


def _configured(config: Config, name: str) -> QpuConfig:
    """Return the configuration of a job's QPU on this node."""
    try:
        return config.qpu(name)
    except RequestError as error:
        raise ConfigError(
            f"{error} The controller has it: the configuration of this node is another. Tell the cluster's "
            "admin, who has `qpu-slurm check`."
        ) from error


def _keys_from_gateway(config: Config, record: JobRecord, step: Step | None, deadline: Deadline) -> Keys:
    gateway = _gateway_as_user(config, record.user_id)
    seconds = min(5.0, max(0.5, deadline.left))
    # No patience here: the plugin asks again.
    if step is None:
        return gateway.keys(record.leader, seconds=seconds, patience=0)
    ago = _seconds_since(step.at)
    return gateway.step_started(record.leader, step.step, step.name, ago, seconds=seconds, patience=0)


def _seconds_since(at: float) -> float:
    """Return how long ago something happened; 0 if the clock was set back since."""
    return max(0.0, time.time() - at)


def _gateway_as_user(config: Config, user_id: int) -> GatewayBroker:
    """Become a job's user, and return the gateway."""
    # Imported only if needed, and before this process becomes a user who may not read installed files.
    from qpu_slurm.gateway.client import GatewayBroker  # noqa: PLC0415

    gateway = GatewayBroker(config)
    _become(user_id)
    return gateway


def _become(user_id: int) -> None:
    """Become a job's user, with the group nobody: MUNGE needs the user, and nothing else is opened."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODYS_GROUP, _NOBODYS_GROUP, _NOBODYS_GROUP)
        os.setresuid(user_id, user_id, user_id)
    elif os.geteuid() != user_id:
        raise SlurmError(f"User {os.geteuid()} cannot ask for the keys of user {user_id}.")


def _authorities(config: Config) -> Path | None:
    """Return the authority that the job's programs have to trust to reach the gateway, if configured."""
    gateway = config.gateway
    return gateway.ca if gateway is not None and gateway.url.startswith("https:") else None
