/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "question.h"

#include <unistd.h>

#include "clock.h"
#include "output.h"

enum {
	/* Milliseconds that the helper may take at most, and is given at least. */
	LONGEST = 15000,
	SHORTEST = 1000,

	/* A gateway that is back is asked by many nodes: not by all of them in the same moment. */
	FIRST_PAUSE = 500,
	LAST_PAUSE = 5000,
};

static int64_t between(int64_t low, int64_t value, int64_t high)
{
	return value < low ? low : value > high ? high : value;
}

enum outcome question_ask(const struct question *question, enum helper_place place, int milliseconds,
			  struct helper_answer *answer, struct problem *why)
{
	char node[256] = "this node";
	struct problem end;

	switch (helper_run(answer, question->argv, question->envp, place, milliseconds, QUESTION_LIMIT, &end)) {
	case HELPER_ENDED:
		if (!output_is_wait(answer->text, answer->exit_code, why))
			return ANSWERED;
		helper_free(answer);
		return UNANSWERED;
	case HELPER_STOPPED:
		if (question->once)
			break;
		(void)gethostname(node, sizeof(node) - 1);
		problem_set(why, "%s: %s gives no answer: %s.", node, question->argv[0], end.text);
		return UNANSWERED;
	case HELPER_FAILED:
		break;
	}
	*why = end;
	return BROKEN;
}

enum outcome question_pursue(const struct question *question, enum helper_place place, int64_t until,
			     question_listener *listener, void *context, struct helper_answer *answer,
			     struct problem *why)
{
	for (int64_t pause = FIRST_PAUSE;; pause = between(0, 2 * pause, LAST_PAUSE)) {
		int64_t left = until - clock_now();
		int longest = (int)between(SHORTEST, left, LONGEST);
		enum outcome outcome = question_ask(question, place, longest, answer, why);

		if (outcome != UNANSWERED || left <= 0)
			return outcome;
		if (listener != NULL)
			listener(context, why);
		/* The nodes of a job differ in their processes' numbers. */
		clock_sleep(between(0, pause + getpid() % (pause / 2), until - clock_now()));
	}
}
