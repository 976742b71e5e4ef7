/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "waiting.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "clock.h"

enum {
	LOOK_EVERY = 100, /* Milliseconds between two looks at whether another task has the answer; */
	LOOK_LONGER = 20000, /* how long to look for it after its time, should that task have been stopped. */
	NAME_SIZE = 16, /* Of a process, see prctl(2). */
	SIGNALS = 32,	/* One more than there are, without the real-time ones. */
};

static const char name_of_waiting[NAME_SIZE] = "qpu-slurm-wait";

struct waiting {
	/* Who has it asks. If that task dies, the next one that looks gets it. */
	pthread_mutex_t asking;
	_Atomic enum { NEW, TOLD, OVER } state;
	struct problem sentence; /* What is waited for; it does not change from TOLD on. */
	/* From OVER on: */
	enum outcome outcome;
	struct problem why;
	int exit_code;
	_Atomic size_t length;
	char text[QUESTION_LIMIT + 1];
};

struct waiting *waiting_start(const struct problem *sentence)
{
	struct waiting *waiting = mmap(NULL, sizeof(*waiting), PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t kind;

	if (waiting == MAP_FAILED)
		return NULL;
	waiting->sentence = *sentence;
	(void)madvise(waiting, sizeof(*waiting), MADV_DONTDUMP);
	pthread_mutexattr_init(&kind);
	pthread_mutexattr_setpshared(&kind, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&kind, PTHREAD_MUTEX_ROBUST);
	pthread_mutex_init(&waiting->asking, &kind);
	pthread_mutexattr_destroy(&kind);
	return waiting;
}

/* What a task tells its user once. */
struct teller {
	struct waiting *waiting;
	int terminal; /* Negative: it has told, or another does. */
	int64_t until;
};

static void tell(struct teller *teller)
{
	time_t end = time(NULL) + (teller->until - clock_now()) / 1000;
	char clock[sizeof("2026-11-28 14:35:10")] = "";
	struct tm local;

	if (teller->terminal < 0 || atomic_load(&teller->waiting->state) == NEW)
		return;
	if (localtime_r(&end, &local) != NULL)
		(void)strftime(clock, sizeof(clock), "%F %T", &local);
	dprintf(teller->terminal, "qpu_slurm: %s This step waits for an answer until %s.\n",
		teller->waiting->sentence.text, clock);
	teller->terminal = -1;
}

static void hear(void *context, const struct problem *why)
{
	struct teller *teller = context;
	struct waiting *waiting = teller->waiting;

	if (atomic_load(&waiting->state) == NEW) {
		waiting->sentence = *why;
		atomic_store(&waiting->state, TOLD);
	}
	tell(teller);
}

/* Whether this task is the one that asks now. */
static bool may_ask(struct waiting *waiting)
{
	switch (pthread_mutex_trylock(&waiting->asking)) {
	case 0:
		return true;
	case EOWNERDEAD:
		(void)pthread_mutex_consistent(&waiting->asking);
		return true;
	default:
		return false;
	}
}

static void ask(struct waiting *waiting, const struct question *question, int64_t until, struct teller *teller)
{
	struct helper_answer answer;

	waiting->outcome = question_pursue(question, HELPER_IN_TASK, until, hear, teller, &answer, &waiting->why);
	if (waiting->outcome == ANSWERED) {
		waiting->exit_code = answer.exit_code;
		atomic_store(&waiting->length, answer.length);
		memcpy(waiting->text, answer.text, answer.length + 1);
		helper_free(&answer);
	}
	atomic_store(&waiting->state, OVER);
}

static void wait_until_over(struct waiting *waiting, const struct question *question, int64_t until,
			    struct teller *teller)
{
	while (atomic_load(&waiting->state) != OVER && clock_now() < until + LOOK_LONGER) {
		if (may_ask(waiting)) {
			if (atomic_load(&waiting->state) != OVER)
				ask(waiting, question, until, teller);
			(void)pthread_mutex_unlock(&waiting->asking);
		} else {
			tell(teller);
			clock_sleep(LOOK_EVERY);
		}
	}
}

/* Let signals end the task, as they end a program: from 24.11 on, a task has slurmstepd's handlers, which do nothing. */
static void drop_handlers(struct sigaction handlers[SIGNALS])
{
	for (int number = 1; number < SIGNALS; number++) {
		if (sigaction(number, NULL, &handlers[number]) != 0)
			handlers[number].sa_handler = SIG_DFL;
		if (handlers[number].sa_handler != SIG_DFL && handlers[number].sa_handler != SIG_IGN)
			(void)signal(number, SIG_DFL);
	}
}

static void restore_handlers(const struct sigaction handlers[SIGNALS])
{
	for (int number = 1; number < SIGNALS; number++)
		if (handlers[number].sa_handler != SIG_DFL && handlers[number].sa_handler != SIG_IGN)
			(void)sigaction(number, &handlers[number], NULL);
}

enum outcome waiting_wait(struct waiting *waiting, const struct question *question, int64_t until, int terminal,
			  struct helper_answer *answer, struct problem *why)
{
	struct teller teller = {waiting, terminal, until};
	struct sigaction handlers[SIGNALS];
	char name[NAME_SIZE] = "";

	(void)prctl(PR_GET_NAME, name);
	(void)prctl(PR_SET_NAME, name_of_waiting);
	drop_handlers(handlers);
	wait_until_over(waiting, question, until, &teller);
	restore_handlers(handlers);
	(void)prctl(PR_SET_NAME, name);
	return waiting_read(waiting, answer, why);
}

/* The tasks that wrote are processes of a user: slurmstepd relies on nothing that it reads. */
enum outcome waiting_read(const struct waiting *waiting, struct helper_answer *answer, struct problem *why)
{
	size_t length = atomic_load(&waiting->length);
	bool over = atomic_load(&waiting->state) == OVER;

	*answer = (struct helper_answer){0};
	*why = over ? waiting->why : waiting->sentence;
	why->text[sizeof(why->text) - 1] = '\0';
	if (!over || waiting->outcome == UNANSWERED)
		return UNANSWERED;
	if (waiting->outcome != ANSWERED || length > QUESTION_LIMIT)
		return BROKEN;
	answer->text = malloc(length + 1);
	if (answer->text == NULL) {
		problem_set(why, "out of memory");
		return BROKEN;
	}
	memcpy(answer->text, waiting->text, length);
	answer->text[length] = '\0';
	answer->length = length;
	answer->exit_code = waiting->exit_code;
	return ANSWERED;
}

void waiting_end(struct waiting *waiting)
{
	explicit_bzero(waiting, sizeof(*waiting));
	(void)munmap(waiting, sizeof(*waiting));
}
