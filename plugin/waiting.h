/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tasks that wait for an answer. One of a node's tasks asks, and all of them learn the answer: it lies in memory
 * that slurmstepd shares with its tasks. Their programs do not have it any more, since execve drops it.
 */
#ifndef QPU_SLURM_WAITING_H
#define QPU_SLURM_WAITING_H

#include "question.h"

struct waiting;

/*
 * Make it, before the tasks are forked.
 *
 * sentence: why there is no answer yet.
 *
 * Returns NULL if there is no memory for it.
 */
struct waiting *waiting_start(const struct problem *sentence);

/*
 * In a task: wait for the answer. The process has another name meanwhile, since Slurm spares what is called
 * slurmstepd when it ends a job (proctrack/linuxproc), and signals do what they do to a program.
 *
 * until: the moment (clock_now) after which it is given up.
 * terminal: the file in which the user reads what is waited for; negative: another task tells.
 *
 * Unless there is an answer, `why` has the reason.
 */
enum outcome waiting_wait(struct waiting *waiting, const struct question *question, int64_t until, int terminal,
			  struct helper_answer *answer, struct problem *why);

/* In slurmstepd: read what its tasks have learnt, as waiting_wait does; UNANSWERED if they are none the wiser. */
enum outcome waiting_read(const struct waiting *waiting, struct helper_answer *answer, struct problem *why);

/* Wipe it, since the answer may hold a credential, and free it. */
void waiting_end(struct waiting *waiting);

#endif
