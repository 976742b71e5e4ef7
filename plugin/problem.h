/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One sentence about what is wrong: every function here that can fail fills one in. */
#ifndef QPU_SLURM_PROBLEM_H
#define QPU_SLURM_PROBLEM_H

#include <stdbool.h>

/* Room for a sentence that lists the QPUs of a large site; what is longer is cut. */
struct problem {
	char text[4096];
};

/*
 * Say what is wrong. What users wrote may be part of it: it is made printable.
 *
 * Returns false, so that a function can say it and give up in one line.
 */
bool problem_set(struct problem *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
