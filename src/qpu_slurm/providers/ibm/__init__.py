# SPDX-License-Identifier: Apache-2.0
"""The IBM Quantum Compute Service (before: Qiskit Runtime), over its REST API.

    service.py  what a provider can do, in the service's words
    usage.py    what a session was used for
    device.py   what circuits have to fit
    answers.py  the answers' shapes, and what is made of errors
    iam.py      the token that an API key is turned into
    http.py     requests that are repeated as long as that is safe and somebody waits
    once.py     requests that must take effect once, though their answer may get lost
    pieces.py   answers that are too big for memory

The API is described at https://quantum.cloud.ibm.com/docs/api/qiskit-runtime-rest.
"""

from __future__ import annotations

from qpu_slurm.providers.ibm.http import Patience
from qpu_slurm.providers.ibm.service import QuantumComputeService

__all__ = ["Patience", "QuantumComputeService"]
