/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run a program beside slurmstepd, for a bounded time, and read what it says, or leave it to itself. */
#ifndef QPU_SLURM_HELPER_H
#define QPU_SLURM_HELPER_H

#include <stdbool.h>
#include <stddef.h>

#include "problem.h"

struct helper_answer {
	char *text; /* Its stdout, with a NUL behind it; helper_free. */
	size_t length;
	int exit_code;
};

/* Where a program runs. */
enum helper_place {
	HELPER_APART,	/* In a process group of its own, of which no process is left when helper_run returns. */
	HELPER_IN_TASK, /* In the caller's: whatever ends the task ends the program as well. */
};

/* How it ended. */
enum helper_end {
	HELPER_ENDED,	/* By itself: there is an answer. */
	HELPER_STOPPED, /* It took too long, or a signal killed it: another run may have an answer. */
	HELPER_FAILED,	/* It could not be run, or said too much. */
};

/*
 * Run a program to its end and read its stdout. It gets nothing of ours but `envp`: stdin and stderr are
 * /dev/null, the directory is /, signals are as after a boot.
 *
 * argv: the absolute path of the program and its arguments.
 * envp: its whole environment.
 * milliseconds: how long it may take.
 * limit: how many bytes it may say.
 *
 * Unless it ended by itself, `answer` is empty and `why` has the reason.
 */
enum helper_end helper_run(struct helper_answer *answer, const char *const argv[], const char *const envp[],
			   enum helper_place place, int milliseconds, size_t limit, struct problem *why);

/*
 * Start a program for which nobody waits: what comes after this process's end does not wait for it, either.
 * It is a process of no family, and gets as little as one of helper_run. When its time is over it is killed.
 *
 * argv, envp: as above.
 * seconds: how long it may take.
 *
 * Returns false, with the reason, if there is no process for it. What becomes of it is not told.
 */
bool helper_leave(const char *const argv[], const char *const envp[], unsigned int seconds,
		  struct problem *why);

/* Wipe an answer, since it may hold a credential, and free it. */
void helper_free(struct helper_answer *answer);

#endif
