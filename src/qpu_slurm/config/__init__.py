# SPDX-License-Identifier: Apache-2.0
"""The admin's configuration, typed and checked.

`load` reads `/etc/qpu_slurm/config.toml`, or upstream's `qrmi_config.json` unchanged. It reports all problems
of the file at once.
"""

from __future__ import annotations

from qpu_slurm.config.kinds import ComputeServiceQpu, IqmServerQpu, QuantumSystemQpu
from qpu_slurm.config.load import DEFAULT_PATH, load, path_of
from qpu_slurm.config.model import Config, GatewayConfig, OutageConfig, QpuConfig, SlurmConfig

__all__ = [
    "DEFAULT_PATH",
    "ComputeServiceQpu",
    "Config",
    "GatewayConfig",
    "IqmServerQpu",
    "OutageConfig",
    "QpuConfig",
    "QuantumSystemQpu",
    "SlurmConfig",
    "load",
    "path_of",
]
