/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A step's environment in slurmstepd, or one task's. */
#ifndef QPU_SLURM_ENVIRONMENT_H
#define QPU_SLURM_ENVIRONMENT_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "names.h"
#include "output.h"

/* Tell whether a variable is set, and not empty. */
bool environment_has(spank_t spank, const char *name);

/*
 * Have it hold what the helper said, and lose what an earlier step of the job, or another job, left there and the
 * helper does not set: a session that is closed by now, say.
 *
 * qpus: the QPUs that there are.
 *
 * Returns NULL, or the variable that could not be set.
 */
const char *environment_update(spank_t spank, const struct output *output, const struct names *qpus);

#endif
