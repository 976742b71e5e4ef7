# SPDX-License-Identifier: Apache-2.0
"""Asks the services how QPUs are: once for all that are reached in the same way, side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from qpu_slurm.errors import QpuSlurmError
from qpu_slurm.system import structs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qpu_slurm.config import QpuConfig
    from qpu_slurm.providers.base import Account, Connect, Provider, QpuStatus
    from qpu_slurm.system.deadline import Deadline
    from qpu_slurm.system.secret import Secret

_AT_ONCE: Final = 8


class Answer(NamedTuple):
    """What a service has said of a QPU.

    Attributes:
        asked_at: When it was asked.
        says: How the QPU is; why that is not known; or None if the service does not list it.
    """

    asked_at: datetime
    says: QpuStatus | QpuSlurmError | None


def ask_services(
    qpus: Iterable[QpuConfig], connect: Connect, *, deadline: Deadline, api_key: Secret | None = None
) -> dict[str, Answer]:
    """Ask how QPUs are.

    Args:
        qpus: The QPUs.
        connect: How a QPU's provider is had.
        deadline: When to give up.
        api_key: The user's own key, for those that need it.

    Returns:
        What is known of each QPU.
    """
    found: dict[str, Answer] = {}
    accounts: dict[Account, tuple[Provider, list[QpuConfig]]] = {}
    for qpu in qpus:
        try:
            access = qpu.access(api_key)
            account = access.account
            if account not in accounts:
                accounts[account] = (connect(access, deadline=deadline), [])
        except QpuSlurmError as error:
            found[qpu.name] = Answer(datetime.now(UTC), error)
        else:
            accounts[account][1].append(qpu)
    if accounts:
        # Here, since a hook whose job names its QPU has no use for it.
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

        structs.prepare()
        with ThreadPoolExecutor(min(_AT_ONCE, len(accounts))) as pool:
            for answer in pool.map(lambda asked: _ask(*asked), accounts.values()):
                found |= answer
    return found


def _ask(provider: Provider, qpus: Iterable[QpuConfig]) -> dict[str, Answer]:
    asked_at = datetime.now(UTC)
    try:
        statuses = provider.statuses()
    except QpuSlurmError as error:
        return {qpu.name: Answer(asked_at, error) for qpu in qpus}
    return {qpu.name: Answer(asked_at, statuses.get(qpu.backend)) for qpu in qpus}
