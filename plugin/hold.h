/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long a session is open: the value of --qpu-hold. */
#ifndef QPU_SLURM_HOLD_H
#define QPU_SLURM_HOLD_H

#include <stdbool.h>

#include "problem.h"

/*
 * Check a value of --qpu-hold: `job` or `task`; slurm/job.py knows the same two.
 *
 * value: what was written; hostile.
 *
 * Returns false, with the reason, if it is neither.
 */
bool hold_check(const char *value, struct problem *why);

#endif
