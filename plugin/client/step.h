/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the SPANK plugin runs for steps (remote.c), as `qpu-slurm` has it:
 *
 *     --config FILE job-env JOB [--user UID] [--unasked] [--step STEP --name=NAME --at SECONDS]
 *     --config FILE step-end JOB STEP [--user UID] --at SECONDS [--cancel MARK]
 *
 * job-env prints lines NAME=value, or one line `error: sentence`, and exits with 0; while the gateway is away for now,
 * it prints one line `wait: sentence` and exits with 75 (EX_TEMPFAIL).
 */
#ifndef QPU_SLURM_CLIENT_STEP_H
#define QPU_SLURM_CLIENT_STEP_H

#include "client/launch.h"

/* arguments: without the program's name. environ: as the plugin made it. Returns the exit code. */
int step_run(const struct launch *launch, char *const arguments[], char *const environ[]);

#endif
