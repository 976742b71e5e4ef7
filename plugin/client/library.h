/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Libraries that are loaded when they are needed: a job without a QPU waits for none of them, and without TLS nobody
 * waits for GnuTLS.
 */
#ifndef QPU_SLURM_CLIENT_LIBRARY_H
#define QPU_SLURM_CLIENT_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "problem.h"

struct library_function {
	const char *name;
	void *pointer; /* A pointer to the function pointer to set. */
};

/* Load a library, for good, and find functions of it. Returns false, with the reason, if one is missing. */
bool library_load(const char *name, const struct library_function functions[], size_t count, struct problem *why);

#endif
