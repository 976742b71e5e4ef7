# SPDX-License-Identifier: Apache-2.0
"""What a provider can do, in the words of the IBM Quantum Compute Service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qpu_slurm.providers.base import (
    Features,
    QpuStatus,
)
from qpu_slurm.providers.ibm import answers
from qpu_slurm.providers.ibm.http import CLIENT, Http, Patience, part
from qpu_slurm.providers.ibm.iam import IamToken
from qpu_slurm.providers.ibm.sessions import Sessions
from qpu_slurm.system.deadline import NEVER, Deadline

if TYPE_CHECKING:
    from datetime import datetime

    from qpu_slurm.providers.base import Access, Device

API_VERSION = "2026-04-15"
"""The API's version that these requests and answers belong to; qiskit-ibm-runtime 0.51 asks for it, too."""


class QuantumComputeService(Sessions):
    """One QPU of the IBM Quantum Compute Service, with one API key; see `providers.base.Provider`.

    Args:
        access: How it is reached.
        deadline: When everything gives up at the latest.
        patience: How long is waited.
        beside: Another one of the same account: they share its token and its connections.
    """

    features = Features(sessions=True, keeps_tasks=False, early_results=True)

    def __init__(
        self,
        access: Access,
        *,
        deadline: Deadline = NEVER,
        patience: Patience | None = None,
        beside: QuantumComputeService | None = None,
    ) -> None:
        self._access = access
        self._patience = patience or Patience()
        self._token: IamToken
        if beside is None:
            neighbour = iam = Http(
                access.iam_endpoint,
                {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"},
                patience=self._patience,
            )
            self._token = IamToken(iam, access.api_key)
        else:
            neighbour, self._token = beside._http, beside._token  # noqa: SLF001 - our own kind
        self._http: Http = Http(
            access.endpoint,
            {
                "Accept": "application/json",
                "Content-Type": "application/json",
                "IBM-API-Version": API_VERSION,
                "Service-CRN": access.instance,
                "X-Qx-Client-Application": CLIENT,
            },
            patience=self._patience,
            credential=self._token,
            deadline=deadline,
            # A gateway is both: IAM and the service.
            beside=neighbour,
        )

    def status(self) -> QpuStatus:
        """Ask whether the QPU takes tasks."""
        path = f"/backends/{part(self._access.backend)}/status"
        answer = self._http.call("GET", path, answers.reading(answers.BackendStatus))
        return answers.qpu_status(
            answer.status, answer.message, answer.length_queue, operational=answer.state
        )

    def statuses(self) -> dict[str, QpuStatus]:
        """Ask the same of all QPUs of the instance; see the protocol."""
        listing = self._http.call("GET", "/backends", answers.reading(answers.Backends))
        return {
            device.name: answers.qpu_status(
                device.status.name,
                device.status.reason,
                device.queue_length,
                traits=answers.traits_of(device),
            )
            for device in listing.devices
        }

    def device(self) -> Device:
        """Ask what circuits have to fit; see the protocol."""
        from qpu_slurm.providers.ibm import device  # noqa: PLC0415 - seldom

        path = f"/backends/{part(self._access.backend)}/configuration"
        return device.read(self._http.call("GET", path, answers.read))

    def calibrated_at(self) -> datetime | None:
        """Ask when the QPU was last calibrated; see the protocol."""
        path = f"/backends/{part(self._access.backend)}/properties"
        # A gateway has a copy, which may be a minute old.
        newest = {"Cache-Control": "no-cache"}
        return answers.calibrated_at(self._http.call("GET", path, answers.read, headers=newest))

    def slots(self) -> None:
        """Tell how many tasks the QPU takes at once: any number."""
