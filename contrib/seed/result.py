# SPDX-License-Identifier: Apache-2.0
"""Result: print the counts in a file that task_runner wrote."""

import sys

from qpu_slurm import read_result

for number, pub in enumerate(read_result(sys.argv[1])):
    for register, bits in pub.data.items():
        print(f"pub {number}, register {register}: {bits.get_counts()}")
