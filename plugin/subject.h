/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which step the helper is asked about, as far as slurmstepd knows it, and what it is asked. */
#ifndef QPU_SLURM_SUBJECT_H
#define QPU_SLURM_SUBJECT_H

#include <slurm/spank.h>
#include <stdbool.h>

#include "arguments.h"
#include "question.h"

#define SUBJECT_NUMBER_LENGTH (sizeof("4294967295") - 1)
#define SUBJECT_TIME_LENGTH (sizeof("18446744073709551615.999") - 1)

struct subject {
	/*
	 * Whether nothing here says if the job has a QPU. A batch job that sbatch did not submit (but slurmrestd, say)
	 * has nothing of ours in its environment, whatever the controller's hooks have done for it.
	 */
	bool unasked;
	char job[SUBJECT_NUMBER_LENGTH + 1];
	char user[SUBJECT_NUMBER_LENGTH + 1]; /* Whose job it is: the helper becomes this user, to ask the gateway. */
	char step[sizeof("interactive")]; /* As Slurm writes it; empty if this node does not report it. */
	/* What no other step has; empty for the batch script and the interactive step, which end with their job. */
	char mark[SUBJECT_NUMBER_LENGTH + sizeof("interactive") + sizeof("0123456789abcdef") + 2];
	char *user_key;		  /* The helper's variable with the user's own key; NULL without. */
	struct question question; /* What the helper is asked when the step starts. */
};

/*
 * Tell whether the step's job may have a QPU, and fill in `unasked`. What it looks at can be forged by the user, who
 * gains nothing: what the helper says does not depend on it.
 *
 * arguments: as the admin wrote them, or NULL if they were wrong;
 * option: the value of the step's --qpu; NULL without.
 */
bool subject_may_have_qpu(struct subject *subject, spank_t spank, const struct arguments *arguments,
			  const char *option);

/* Fill in the rest. Returns false if Slurm does not report the job's number and user. */
bool subject_find(struct subject *subject, spank_t spank, const struct arguments *arguments);

/* Write the time as the helper reads it: seconds, with a fraction. */
void subject_write_now(char text[SUBJECT_TIME_LENGTH + 1]);

#endif
