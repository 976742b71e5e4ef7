# SPDX-License-Identifier: Apache-2.0
"""Everything to try qpu_slurm without hardware: an emulated service and a throw-away cluster."""
