/* SPDX-License-Identifier: GPL-2.0-or-later */
/* An HTTP/1.1 answer (RFC 9112), as the gateway writes one: a body of a length that is given, or none. */
#ifndef QPU_SLURM_CLIENT_ANSWER_H
#define QPU_SLURM_CLIENT_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

/* How many bytes all of it may have: the plugin takes no more of the body (remote.c). */
enum { ANSWER_LIMIT = 80 * 1024 };

enum answer_state {
	ANSWER_PARTIAL, /* More of it has to come. */
	ANSWER_WHOLE,
	ANSWER_STRANGE, /* It is not an answer of the gateway. */
};

struct answer {
	int status;
	bool text;	  /* Its type is text/plain: it is written for this client. */
	const char *body; /* In what was read. */
	size_t length;
};

/* Read what has come so far of an answer. */
enum answer_state answer_parse(struct answer *answer, const char *data, size_t length);

#endif
