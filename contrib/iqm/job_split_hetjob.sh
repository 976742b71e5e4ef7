#!/bin/sh
#SBATCH --qpu=garnet
#SBATCH --job-name=job_split_hetjob
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --partition normal

#SBATCH hetjob

#SBATCH --gres=qpu:1
#SBATCH --qpu=garnet
#SBATCH --partition quantum

set -e
. "${IQM_VENV:-/shared/iqm}/bin/activate"
srun --het-group=0 python map_optimize.py
srun --het-group=1 task_runner garnet iqm_input_garnet.json iqm_output_garnet.json
srun --het-group=0 python result.py iqm_output_garnet.json
