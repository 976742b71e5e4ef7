# SPDX-License-Identifier: Apache-2.0
"""The tests, in three rings: unit, integration (the emulator), cluster (a real Slurm)."""
