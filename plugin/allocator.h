/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What runs in sbatch, salloc and srun, as the user: the options are checked, and published with the job.
 * All of it can be left out by whoever writes a client of his own, so nobody may trust it: the hooks check
 * again.
 */
#ifndef QPU_SLURM_ALLOCATOR_H
#define QPU_SLURM_ALLOCATOR_H

#include <slurm/spank.h>

#include "arguments.h"
#include "problem.h"

/*
 * Forget the job that this command runs in, if it submits one of its own: a nested job has the QPU that it
 * asks for itself, and no other. Must be called before Slurm looks for options in the environment.
 */
void allocator_forget_outer_job(void);

/*
 * Mark the step that this srun is about to start, if it may belong to a job in which srun does not run
 * (`srun --jobid`): its environment has nothing of that job, so the node asks what QPUs the job has.
 */
void allocator_mark_attached(void);

/*
 * Whether this is scrontab(1): it takes a plugin's options and publishes nothing (slurm_spank_init_post_opt is
 * never called), so what was asked for would be lost without a word.
 */
bool allocator_is_scrontab(void);

/* Check the value of --qpu. Returns false, with the reason, if it cannot be had. */
bool allocator_check(const struct arguments *arguments, const char *value, struct problem *why);

/*
 * Publish the options, checked before, with the job that is about to be submitted.
 *
 * qpu, session: the values of --qpu and --qpu-session; NULL without.
 */
bool allocator_publish(spank_t spank, const struct arguments *arguments, const char *qpu, const char *session,
		       struct problem *why);

#endif
