# SPDX-License-Identifier: Apache-2.0
"""The emulator as a service for the conformance suite, whichever of its APIs a provider speaks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qpu_slurm_devkit.emulator import Emulator


class EmulatedService:
    """The emulator, in the hands of its premium account."""

    backend = "ibm_fez"
    other = "ibm_torino"
    program_id = "sampler"
    bad_parameters = b'{"pubs": [["no circuit"]], "version": 2}'

    def __init__(self, emulator: Emulator, circuit: str) -> None:
        self.emulator = emulator
        document = {"pubs": [[circuit, None, 16]], "version": 2, "support_qiskit": False}
        self.parameters = json.dumps(document).encode()

    def pause(self, reason: str) -> None:
        self.emulator.set_backend(self.backend, "paused", reason)
