#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Submit the three chained jobs; each starts when the one before it has completed.

set -e
next="--parsable --kill-on-invalid-dep=yes --dependency=afterok"

jobidA=$(sbatch --parsable ./map_optimize.sh)
echo "$jobidA"
jobidB=$(sbatch $next:"$jobidA" ./execute.sh)
echo "$jobidB"
jobidC=$(sbatch $next:"$jobidB" ./result.sh)
echo "$jobidC"
