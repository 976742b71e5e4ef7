#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A variational loop, as one job. Its first task locks the QPU, and the end of `with Session` frees it.

#SBATCH --qpu=ibm_fez
#SBATCH --qpu-session=task
#SBATCH --job-name=vqe
#SBATCH --gres=qpu:1
#SBATCH --partition quantum

source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun python vqe.py
