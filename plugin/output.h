/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the helper (`qpu-slurm job-env JOBID`) says of a job: lines NAME=value, one variable each; or one line
 * `error: sentence` if the job must not run; or one line `wait: sentence`, and the exit code 75 (EX_TEMPFAIL of
 * sysexits.h), if whoever knows does not answer for now.
 */
#ifndef QPU_SLURM_OUTPUT_H
#define QPU_SLURM_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "problem.h"

struct variable {
	const char *name;
	const char *value;
};

struct output {
	struct variable *variables;
	size_t count;
	const char *error; /* The sentence, or NULL. */
	size_t dropped;	   /* How many variables were none of ours; */
	const char *first_dropped; /* one of them, for the log. */
};

/*
 * Tell whether a variable is one that this project sets. Others are not taken from the helper, so that a
 * mistake there cannot become an LD_PRELOAD here, and not removed from a nested job's environment.
 */
bool output_is_ours(const char *name);

/*
 * Tell whether a variable says whom all programs of a step trust. The helper may give it, and what the user has set
 * comes first: it is as little ours as PATH.
 */
bool output_is_trust(const char *name);

/*
 * Tell whether the helper had no answer for now.
 *
 * sentence: then, what it waits for.
 */
bool output_is_wait(const char *text, int exit_code, struct problem *sentence);

/*
 * Read what the helper wrote.
 *
 * text: its output, with a NUL behind it; changed, and pointed into afterwards.
 * length: its length without that NUL.
 *
 * Returns false, with the reason, if a line is neither of the two.
 */
bool output_parse(struct output *output, char *text, size_t length, struct problem *why);

/* Return the value of a variable, or NULL if the helper does not set it. */
const char *output_value(const struct output *output, const char *name);

void output_free(struct output *output);

#endif
