# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm budget`: what may be used, and what was used of it.

command  what a person types
show     how it is printed
"""
