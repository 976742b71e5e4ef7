/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long a session is open: the value of --qpu-session. */
#ifndef QPU_SLURM_SESSION_H
#define QPU_SLURM_SESSION_H

#include <stdbool.h>

#include "problem.h"

/*
 * Check a value of --qpu-session: `job` or `task`; slurm/job.py knows the same two.
 *
 * value: what was written; hostile.
 *
 * Returns false, with the reason, if it is neither.
 */
bool session_check(const char *value, struct problem *why);

#endif
