/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The body of a request: `NAME=value`, each with a NUL behind it, as in an environment. */
#ifndef QPU_SLURM_CLIENT_FIELDS_H
#define QPU_SLURM_CLIENT_FIELDS_H

#include <stdbool.h>
#include <stddef.h>

/* How long a value may be that is sent, and all of them. */
enum { FIELD_LIMIT = 8 * 1024, FIELDS_LIMIT = 48 * 1024 };

struct fields {
	char data[FIELDS_LIMIT];
	size_t length;
};

/* Add one. Returns false if it is too long to make sense, or there is no room for it. */
bool fields_add(struct fields *fields, const char *name, const char *value);

#endif
