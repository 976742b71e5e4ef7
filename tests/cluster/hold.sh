#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# slurmd's Prolog: a job that was submitted with --comment=held:FILE starts when FILE is in its directory. Until then,
# FILE.held is there. It has its QPUs by now, and nothing of it runs yet.

case "${SLURM_JOB_COMMENT-}" in
held:*) ;;
*) exit 0 ;;
esac
file="$SLURM_JOB_WORK_DIR/${SLURM_JOB_COMMENT#held:}"
: >"$file.held"
tries=0
while [ ! -e "$file" ] && [ "$tries" -lt 250 ]; do
    /bin/sleep 0.2
    tries=$((tries + 1))
done
exit 0
