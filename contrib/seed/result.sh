#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The last of three chained jobs: print the result. It needs no QPU.

#SBATCH --job-name=job_split_result
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition=normal

# Without the environment, or after a step that fails, nothing more runs.
set -e

# The virtual environment that qpu_slurm is installed in.
source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun python result.py sampler_output_ibm_fez.json
