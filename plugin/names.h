/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of names separated by commas: the value of --qpu, and what the admin wrote in plugstack.conf. */
#ifndef QPU_SLURM_NAMES_H
#define QPU_SLURM_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "problem.h"

/* How many QPUs one option may name, and how long a name may be; slurm/job.py holds to the same. */
enum { NAMES_MAX = 16, NAME_LENGTH = 64 };

struct names {
	size_t count;
	char **items; /* Pointers into `text`. */
	char *text;
};

/* What a name may look like. */
typedef bool name_shape(const char *name);

/*
 * A QPU: [A-Za-z][A-Za-z0-9_]{0,63}. It becomes part of a variable's name, a gres type and a log line. A hyphen
 * would be lost on the way: dash, which is /bin/sh on Debian, drops variables that have one in their name.
 */
bool name_is_qpu(const char *name);

/* What a user may take for a QPU's name, to be told which there are. [A-Za-z][A-Za-z0-9_:-]{0,63} */
bool name_is_guess(const char *name);

/* A partition, as Slurm names it, or `*` for every one. */
bool name_is_partition(const char *name);

/*
 * Read a list of names, each once.
 *
 * what: what the list is called in a message, such as `--qpu`.
 * value: what was written; hostile.
 * shape: what each name has to look like.
 * max: how many there may be.
 *
 * Returns false, with the reason, if the list is empty or malformed or names something twice; `names` is
 * empty then.
 */
bool names_parse(struct names *names, const char *what, const char *value, name_shape *shape, size_t max,
		 struct problem *why);

bool names_contain(const struct names *names, const char *name);

/* Write the list for a message, as `a, b`; what does not fit is left out. Returns `text`. */
const char *names_join(const struct names *names, char *text, size_t size);

void names_free(struct names *names);

#endif
