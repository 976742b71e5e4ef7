# SPDX-License-Identifier: Apache-2.0
"""What Slurm knows of a job, and what we ask Slurm to do with it."""
