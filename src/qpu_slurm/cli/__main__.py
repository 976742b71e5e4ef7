# SPDX-License-Identifier: Apache-2.0
"""`python -m qpu_slurm.cli` is `qpu-slurm`."""

from __future__ import annotations

import sys

from qpu_slurm.cli import main

if __name__ == "__main__":
    sys.exit(main())
