#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A variational loop, as one job. Its first task locks the QPU, and the end of `with Session` frees it.

#SBATCH --qpu=ibm_fez
#SBATCH --qpu-session=task
#SBATCH --job-name=vqe
#SBATCH --gres=qpu:1
#SBATCH --partition quantum

# A step that fails ends the job with its exit code.
set -e

# The virtual environment that qpu_slurm is installed in.
source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun python vqe.py
