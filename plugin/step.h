/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a step is called where people read of it: by its program. */
#ifndef QPU_SLURM_STEP_H
#define QPU_SLURM_STEP_H

enum { STEP_NAME_LENGTH = 64 };

/*
 * Name a step: what an interpreter runs, such as `result.py`, else its program, without directories.
 *
 * name: what it is called: [A-Za-z0-9._+-], at least one of them; whatever else a user wrote becomes `_`.
 * argc, argv: the step's program and its arguments, as the user wrote them; hostile.
 */
void step_name(char name[STEP_NAME_LENGTH + 1], int argc, char *const argv[]);

#endif
