#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The same heterogeneous job, which holds the QPU only while its task runs: no session is opened before the first
# task, and --final says that there will be no other.

#SBATCH --qpu=ibm_fez
#SBATCH --qpu-session=task
#SBATCH --job-name=job_split_session
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition normal

#SBATCH hetjob

#SBATCH --gres=qpu:1
#SBATCH --qpu=ibm_fez
#SBATCH --qpu-session=task
#SBATCH --partition quantum

# A step that fails ends the job with its exit code, before result.py reads what is not there.
set -e

# The virtual environment that qpu_slurm is installed in.
source "${QPU_SLURM_VENV:-/shared/pyenv}/bin/activate"
srun --het-group=0 python map_optimize.py
srun --het-group=1 task_runner --final ibm_fez sampler_input_ibm_fez.json sampler_output_ibm_fez.json
srun --het-group=0 python result.py sampler_output_ibm_fez.json
