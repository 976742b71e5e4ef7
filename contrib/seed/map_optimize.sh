#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The first of three chained jobs: transpile. It is bound to the QPU, and asks for no gres.

#SBATCH --qpu=ibm_fez
#SBATCH --job-name=job_split_map_optimize
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition=normal

# Without the environment, or after a step that fails, nothing more runs.
set -e

# The virtual environment that qpu_slurm is installed in.
source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun python map_optimize.py
