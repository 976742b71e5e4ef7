/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ask the gateway (src/qpu_slurm/gateway/messages.py). All that is asked may be asked again, so a question whose answer
 * was lost is repeated, with a new proof of who asks.
 */
#ifndef QPU_SLURM_CLIENT_ASK_H
#define QPU_SLURM_CLIENT_ASK_H

#include <stddef.h>

#include "client/answer.h"
#include "client/config.h"
#include "problem.h"

struct question {
	const char *method;
	const char *path; /* As sent: what is in it needs no quoting. */
	const char *body;
	size_t length;
};

struct patience {
	int answer; /* Milliseconds for all of it. */
	int away;   /* How long a gateway that does not answer may be one that is just being restarted. */
};

enum ask_result {
	ASK_ANSWERED,
	ASK_AWAY,   /* The gateway does not answer. */
	ASK_BROKEN, /* This client cannot ask it: the Python command says why, or can. */
};

/*
 * Ask, as this process's user.
 *
 * answer: points into memory that the next call uses again; ask_wipe.
 */
enum ask_result ask(struct answer *answer, const struct config *config, const struct question *question,
		    struct patience patience, struct problem *why);

/* Wipe the last answer, since it may hold a credential. */
void ask_wipe(void);

#endif
