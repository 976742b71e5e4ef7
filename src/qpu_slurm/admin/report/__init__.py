# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm report`: what QPUs were used for, by whom and when, out of the journal.

command  what an admin types
sums     sessions, summed up
show     as a table, as CSV, as JSON
plot     as a picture
"""
