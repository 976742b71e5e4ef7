/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the unit tests are written with: CHECK says where a test failed, and ends it. */
#ifndef QPU_SLURM_CHECK_H
#define QPU_SLURM_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* what: the case at hand, such as the value that is being read. */
#define CHECK(condition, what)                                                                               \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, what, #condition);    \
			exit(1);                                                                             \
		}                                                                                            \
	} while (0)

#endif
