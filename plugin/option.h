/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The value of --qpu: names of QPUs, and wishes that are met when the job starts, as in any:qubits>=100 and
 * ibm_fez|ibm_torino. src/qpu_slurm/qpu_option.py has the grammar, and reads what is wished for. Here, the shape is
 * checked, and which QPUs and attributes are named, so that a mistake shows when the job is submitted.
 */
#ifndef QPU_SLURM_OPTION_H
#define QPU_SLURM_OPTION_H

#include <stdbool.h>

#include "names.h"
#include "problem.h"

/* How long a value may be, and a constraint's value. */
enum { OPTION_LENGTH = 1024, OPTION_VALUE_LENGTH = 64 };

struct option {
	struct names named;   /* The QPUs that the job gets, */
	struct names offered; /* those that are alternatives of others, each once, */
	bool any;	      /* and whether every QPU is one. */
	char *text;
};

/*
 * Read a value.
 *
 * value: what the user wrote; hostile.
 * shape: what a name has to look like that stands alone.
 *
 * Returns false, with the reason, if it is malformed; `option` is empty then.
 */
bool option_parse(struct option *option, const char *value, name_shape *shape, struct problem *why);

/* Whether it leaves a choice. */
bool option_has_choice(const struct option *option);

void option_free(struct option *option);

#endif
