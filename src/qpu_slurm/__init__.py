# SPDX-License-Identifier: Apache-2.0
"""Quantum processors as a resource of Slurm clusters."""
