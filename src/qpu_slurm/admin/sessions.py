# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm reap --sessions` and `--end`: the open sessions of the account that no lease knows.

Nothing proves whose they are: another cluster may use the account, or a person without one. So they are
shown, and a person decides.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table
from rich.text import Text

from qpu_slurm import providers
from qpu_slurm.admin import tables
from qpu_slurm.errors import NotFoundError, QpuSlurmError, RequestError
from qpu_slurm.names import JOB_TAG
from qpu_slurm.reach.local import open_journal
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qpu_slurm.config import Config, QpuConfig
    from qpu_slurm.journal.journal import Journal
    from qpu_slurm.providers.base import Provider

_LONGEST = timedelta(days=1)
"""How long ago a session may have been opened: none lives for more than 8 hours (max_ttl)."""

_ANSWER_SECONDS = 30.0


class UnknownSession(msgspec.Struct, frozen=True, kw_only=True):
    """An open session that no lease has or had.

    Attributes:
        qpu: The QPU, as users name it.
        session_id: The service's id of it.
        created_at: When the service made it.
        tag: The tag of its newest task that names cluster and job; empty where it has none.
    """

    qpu: str
    session_id: str
    created_at: datetime
    tag: str


def show(config: Config, *, as_json: bool) -> int:
    """Print the sessions that no lease knows; return the exit code.

    Args:
        config: What the admin wrote.
        as_json: Print a JSON list rather than a table.

    Raises:
        QpuSlurmError: The journal or a service cannot be asked.
    """
    with open_journal(config) as journal:
        found = list(_unknown(config, journal))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())  # noqa: T201 - a command
    else:
        print(_as_table(found))  # noqa: T201 - a command
    return 0


def end(config: Config, session_ids: Sequence[str]) -> int:
    """End sessions that no lease knows, and whatever waits in them; return the exit code.

    Args:
        config: What the admin wrote.
        session_ids: Which.

    Raises:
        RequestError: There is no such session, or a lease has it. Nothing is ended.
        QpuSlurmError: The journal or a service cannot be asked.
    """
    with open_journal(config) as journal:
        found = {session.session_id: session for session in _unknown(config, journal)}
        for session_id in session_ids:
            if session_id not in found:
                lease = journal.holder_of(session_id)
                if lease is not None:
                    raise RequestError(
                        f"Job {lease.job_id} has the session {session_id}. "
                        f"Write `qpu-slurm release {lease.job_id}`."
                    )
                raise RequestError(f"There is no open session {session_id} that no lease knows.")
    failed = 0
    for session_id in session_ids:
        name = found[session_id].qpu
        try:
            _connect(config.qpu(name)).cancel_session(session_id)
        except NotFoundError:
            pass
        except QpuSlurmError as error:
            print(f"{name}: {session_id}: not ended: {error}")  # noqa: T201 - a command
            failed += 1
            continue
        print(f"{name}: {session_id}: ended")  # noqa: T201 - a command
    return 1 if failed else 0


def _unknown(config: Config, journal: Journal) -> Iterator[UnknownSession]:
    since = datetime.now(UTC) - _LONGEST
    for qpu in config.qpus.values():
        if qpu.needs_user_key and not os.environ.get("QISKIT_IBM_TOKEN"):
            continue
        for session in _connect(qpu).live_sessions(since):
            # Asked after the service: what it has by then, a lease has, or will never have.
            if journal.holder_of(session.id) is None:
                tag = next((tag for tag in session.tags if tag.startswith(JOB_TAG)), "")
                yield UnknownSession(
                    qpu=qpu.name, session_id=session.id, created_at=session.created_at, tag=tag
                )


def _connect(qpu: QpuConfig) -> Provider:
    token = os.environ.get("QISKIT_IBM_TOKEN")
    access = qpu.access(Secret(token) if token and qpu.needs_user_key else None)
    return providers.connect(access, deadline=Deadline.after(_ANSWER_SECONDS))


def _as_table(sessions: Sequence[UnknownSession]) -> str:
    if not sessions:
        return "No open session that no lease knows."
    table = Table("QPU", "session", "since", "tasks of", box=None, pad_edge=False)
    for session in sessions:
        since = tables.time_text(session.created_at)
        table.add_row(*map(Text, (session.qpu, session.session_id, since, session.tag or "-")))
    return tables.printed(table)
