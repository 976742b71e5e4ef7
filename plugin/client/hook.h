/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The controller's hooks (PrologSlurmctld, EpilogSlurmctld), run as SlurmUser once for every job, element and
 * component. A job that asks for no QPU costs a look into its environment and nothing more.
 */
#ifndef QPU_SLURM_CLIENT_HOOK_H
#define QPU_SLURM_CLIENT_HOOK_H

#include "client/launch.h"

/*
 * Be a hook.
 *
 * environ: as Slurm made it; users wrote what is in its variables SPANK_*.
 *
 * Returns the exit code: 0 lets the job start; 1 has Slurm requeue a batch job after two minutes, and end any other.
 */
int hook_run(const struct launch *launch, char *const environ[]);

#endif
