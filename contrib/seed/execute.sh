#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The second of three chained jobs: execute. Only this one holds the QPU.

#SBATCH --qpu=ibm_fez
#SBATCH --gres=qpu:1
#SBATCH --job-name=job_split_execute
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition=quantum

# Without the environment, or after a step that fails, nothing more runs.
set -e

# The virtual environment that qpu_slurm is installed in.
source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun task_runner ibm_fez sampler_input_ibm_fez.json sampler_output_ibm_fez.json
