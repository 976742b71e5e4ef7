# SPDX-License-Identifier: Apache-2.0
"""What Slurm runs: the controller's prolog and epilog, and a step's start and end."""
