/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the helper is asked for a step, and how long: it may have no answer for now. */
#ifndef QPU_SLURM_QUESTION_H
#define QPU_SLURM_QUESTION_H

#include <stdbool.h>
#include <stdint.h>

#include "helper.h"
#include "problem.h"

struct question {
	const char *const *argv; /* The helper and its arguments. */
	const char *const *envp; /* Its whole environment. */
	bool once;		 /* If it takes too long, it is not asked again. */
};

/* How many bytes the helper may say. */
enum { QUESTION_LIMIT = 64 * 1024 };

/* What came of asking. */
enum outcome {
	ANSWERED,
	UNANSWERED, /* Whoever knows does not answer for now, or the helper took too long. */
	BROKEN,	    /* Asking again would not help. */
};

/* Who is told what is waited for, each time that there was no answer. */
typedef void question_listener(void *context, const struct problem *why);

/*
 * Ask once.
 *
 * place: where the helper runs.
 * milliseconds: how long it may take.
 *
 * Unless there is an answer, `answer` is empty and `why` has the reason: for UNANSWERED, a sentence.
 */
enum outcome question_ask(const struct question *question, enum helper_place place, int milliseconds,
			  struct helper_answer *answer, struct problem *why);

/*
 * Ask again and again, with pauses that grow.
 *
 * until: the moment (clock_now) after which it is not asked again; the last time takes a second at least.
 * listener, context: who is told; NULL: nobody.
 *
 * Returns as question_ask does.
 */
enum outcome question_pursue(const struct question *question, enum helper_place place, int64_t until,
			     question_listener *listener, void *context, struct helper_answer *answer,
			     struct problem *why);

#endif
