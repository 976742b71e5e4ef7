/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The proof of who asks: a MUNGE credential. libmunge is loaded when the first one is made. */
#ifndef QPU_SLURM_CLIENT_PROOF_H
#define QPU_SLURM_CLIENT_PROOF_H

#include <stdbool.h>

#include "problem.h"

/*
 * Make a credential that names this process's user; each is good for one request.
 *
 * socket: where munged listens; empty leaves it to libmunge.
 * payload: what it holds.
 *
 * Returns the credential, for free(); NULL, with the reason, if there is none.
 */
char *proof_make(const char *socket, const char *payload, struct problem *why);

#endif
