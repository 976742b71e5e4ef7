# SPDX-License-Identifier: Apache-2.0
"""`qpu-slurm timeline`: when a job waited and ran, when its session was open, and when the QPU was locked.

command  what somebody types
chart    what is drawn: rows of bars, out of what is known of a job
text     in a terminal
picture  as SVG and PNG
"""
