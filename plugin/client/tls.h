/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS 1.2 or newer, by GnuTLS, which is loaded when the first connection is opened. */
#ifndef QPU_SLURM_CLIENT_TLS_H
#define QPU_SLURM_CLIENT_TLS_H

#include <sys/types.h>

#include "problem.h"

struct tls;

/* What a step of the handshake, a read or a write has come to, besides a number of bytes. */
enum { TLS_WANTS_READ = -1, TLS_WANTS_WRITE = -2, TLS_LOST = -3, TLS_REFUSED = -4 };

/*
 * Prepare a session on a connected, non-blocking socket.
 *
 * host: the name or address that the certificate has to be for.
 * ca: the file of the authorities to trust; empty: those that the machine trusts.
 *
 * Returns NULL, with the reason, if this host cannot.
 */
struct tls *tls_new(int fd, const char *host, const char *ca, struct problem *why);

/* Go on with the handshake: 0 when it is done and the server is who it should be. */
int tls_handshake(struct tls *tls, struct problem *why);

ssize_t tls_write(struct tls *tls, const char *data, size_t length, struct problem *why);

ssize_t tls_read(struct tls *tls, char *data, size_t size, struct problem *why);

void tls_free(struct tls *tls);

#endif
