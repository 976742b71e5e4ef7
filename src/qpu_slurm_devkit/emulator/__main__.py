# SPDX-License-Identifier: Apache-2.0
"""`python -m qpu_slurm_devkit.emulator`."""

from __future__ import annotations

import sys

from qpu_slurm_devkit.emulator.command import main

if __name__ == "__main__":
    sys.exit(main())
