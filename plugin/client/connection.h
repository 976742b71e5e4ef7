/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A connection to the gateway: TCP, and TLS on top of it where its URL says https. Every wait has an end. */
#ifndef QPU_SLURM_CLIENT_CONNECTION_H
#define QPU_SLURM_CLIENT_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/config.h"
#include "problem.h"

enum connection_result {
	CONNECTION_FINE,
	CONNECTION_AWAY,   /* The gateway does not answer. */
	CONNECTION_BROKEN, /* It is not trusted, or this host cannot speak with it. */
};

struct connection {
	int fd;
	struct tls *tls; /* NULL without. */
};

/* Connect until a moment of clock_now; whom to trust is checked before anything is sent. */
enum connection_result connection_open(struct connection *connection, const struct config *config, int64_t until,
				       struct problem *why);

enum connection_result connection_send(struct connection *connection, const char *data, size_t length, int64_t until,
				       struct problem *why);

/* Receive what is there, at least a byte; `got` is 0 at the end. */
enum connection_result connection_receive(struct connection *connection, char *data, size_t size, size_t *got,
					  int64_t until, struct problem *why);

void connection_close(struct connection *connection);

#endif
