# SPDX-License-Identifier: Apache-2.0
"""The public Python API, re-exported by `qpu_slurm`: a job's QPUs, inputs, execution, results."""
