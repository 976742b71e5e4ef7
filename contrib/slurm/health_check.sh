#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A HealthCheckProgram for compute nodes: logs what is wrong with the node's part of qpu_slurm. In slurm.conf:
#
#     HealthCheckProgram=/etc/slurm/health_check.sh
#     HealthCheckInterval=300
#
# It never drains a node: jobs without a QPU run there all the same, and a step with a QPU prints the reason. If you
# have a HealthCheckProgram already, such as NHC, call this script from it.

check=/opt/qpu_slurm/bin/qpu-slurm
log=/usr/bin/logger

# slurmd waits for the program, and kills it after 60 s.
found=$(/usr/bin/timeout --kill-after=5 30 "$check" check --node </dev/null 2>&1)
code=$?
case $code in
    0) priority=daemon.warning ;;
    124 | 137) priority=daemon.err found="$check check --node has not ended within 30 s." ;;
    *) priority=daemon.err ;;
esac
[ -z "$found" ] && [ "$code" -eq 0 ] || printf '%s\n' "${found:-$check has failed ($code).}" | "$log" -t qpu-slurm -p "$priority"

# slurmd logs another code as an error of the program, each time.
exit 0
