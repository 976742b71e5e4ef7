/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What runs in slurmstepd, on the compute node: the job's QPU variables are asked for, as root, and set for
 * the batch script and every step; asking says that the step begins, and when it has ended, that is told as
 * well. Nothing here returns an error: it would cost a node. A job that must not run is ended by its own tasks
 * instead.
 *
 * Whoever has the answer may be away. slurmstepd itself must not wait: Slurm would take the node for lost. So it
 * asks once, for a second, and then the step's tasks wait, as the user.
 */
#ifndef QPU_SLURM_REMOTE_H
#define QPU_SLURM_REMOTE_H

#include <slurm/spank.h>

#include "arguments.h"
#include "problem.h"

/*
 * Set the variables of the step's job, if it may have a QPU; others cost a few looks into their environment.
 *
 * arguments: as the admin wrote them, or NULL if they were wrong;
 * mistake: then, in which way.
 * option: the value of the step's --qpu, which it inherits from its job or was given itself; NULL without.
 */
void remote_set_variables(spank_t spank, const struct arguments *arguments, const struct problem *mistake,
			  const char *option);

/*
 * In the task, as the user: wait for the variables if there was no answer yet, for as long as the admin says. End
 * the task if the job must not run, and say why.
 *
 * arguments, option: as above.
 */
void remote_start_task(spank_t spank, const struct arguments *arguments, const char *option);

/* Take note of how a task of the step has ended. */
void remote_see_task_end(spank_t spank);

/* Have it told that the step has ended, if it was told that it began. Nobody waits for that. */
void remote_report_end(const struct arguments *arguments);

#endif
