/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The files that start the client, since it is what their first line names: prolog.sh, epilog.sh and helper (hooks/).
 * Each says what the client is to be, and where everything is on this host: `name = value`, one a line.
 */
#ifndef QPU_SLURM_CLIENT_LAUNCH_H
#define QPU_SLURM_CLIENT_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>

#include "names.h"
#include "problem.h"

enum { LAUNCH_LIMIT = 16 * 1024 };

struct launch {
	const char *run;       /* `prolog`, `epilog` or `helper`. */
	const char *qpu_slurm; /* The Python command. */
	const char *config;    /* config.toml */
	const char *scontrol;
	const char *slurm_conf;
	const char *gres_partitions; /* In which a gres alone asks for a QPU; may be empty. */
};

/*
 * Read the text of such a file.
 *
 * text: with a NUL behind it; changed, and pointed into afterwards.
 *
 * Returns false, with the reason, if a line is not understood or one is missing.
 */
bool launch_parse(struct launch *launch, char *text, size_t length, struct problem *why);

#endif
