# SPDX-License-Identifier: Apache-2.0
"""The primitives of Qiskit's executor, in the job's session by default.

They prepare and post-process in the job's own program; the service executes a `QuantumProgram`.
qiskit-ibm-runtime has them since 0.48. From 0.50 on, they replace `SamplerV2` and `EstimatorV2`.
"""

from __future__ import annotations

import qiskit_ibm_runtime

from qpu_slurm.api.primitives import JobPrimitive

try:
    from qiskit_ibm_runtime import executor_estimator, executor_sampler
except ImportError:
    raise ImportError(
        "Sampler and Estimator need qiskit-ibm-runtime 0.48 or newer, and this is "
        f"{qiskit_ibm_runtime.__version__}: use SamplerV2 and EstimatorV2."
    ) from None


# Qiskit is published without type information, so what is derived from it is for mypy derived from Any.
class Sampler(JobPrimitive, executor_sampler.Sampler):  # type: ignore[misc]
    """The executor's `Sampler` in the job's session; see `JobPrimitive` for the arguments."""


class Estimator(JobPrimitive, executor_estimator.Estimator):  # type: ignore[misc]
    """The executor's `Estimator` in the job's session; see `JobPrimitive` for the arguments."""
