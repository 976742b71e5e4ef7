/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/tls.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#include "client/library.h"

#define LIBRARY "libgnutls.so.30"

/* What the machine's own policy may narrow and not widen. */
#define PRIORITY "-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"

static struct {
	__typeof__(gnutls_init) *init;
	__typeof__(gnutls_deinit) *deinit;
	__typeof__(gnutls_strerror) *strerror;
	__typeof__(gnutls_handshake) *handshake;
	__typeof__(gnutls_record_recv) *receive;
	__typeof__(gnutls_record_send) *send;
	__typeof__(gnutls_record_get_direction) *direction;
	__typeof__(gnutls_transport_set_int2) *set_fd;
	__typeof__(gnutls_server_name_set) *set_name;
	__typeof__(gnutls_set_default_priority_append) *set_priority;
	__typeof__(gnutls_session_set_verify_cert) *verify;
	__typeof__(gnutls_credentials_set) *set_credentials;
	__typeof__(gnutls_certificate_allocate_credentials) *allocate;
	__typeof__(gnutls_certificate_free_credentials) *free;
	__typeof__(gnutls_certificate_set_x509_trust_file) *trust_file;
	__typeof__(gnutls_certificate_set_x509_system_trust) *trust_system;
} library;

struct tls {
	gnutls_session_t session;
	gnutls_certificate_credentials_t credentials;
};

static bool load(struct problem *why)
{
	const struct library_function functions[] = {
		{"gnutls_init", &library.init},
		{"gnutls_deinit", &library.deinit},
		{"gnutls_strerror", &library.strerror},
		{"gnutls_handshake", &library.handshake},
		{"gnutls_record_recv", &library.receive},
		{"gnutls_record_send", &library.send},
		{"gnutls_record_get_direction", &library.direction},
		{"gnutls_transport_set_int2", &library.set_fd},
		{"gnutls_server_name_set", &library.set_name},
		{"gnutls_set_default_priority_append", &library.set_priority},
		{"gnutls_session_set_verify_cert", &library.verify},
		{"gnutls_credentials_set", &library.set_credentials},
		{"gnutls_certificate_allocate_credentials", &library.allocate},
		{"gnutls_certificate_free_credentials", &library.free},
		{"gnutls_certificate_set_x509_trust_file", &library.trust_file},
		{"gnutls_certificate_set_x509_system_trust", &library.trust_system},
	};

	return library.init != NULL || library_load(LIBRARY, functions, sizeof(functions) / sizeof(functions[0]), why);
}

static bool is_address(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

struct tls *tls_new(int fd, const char *host, const char *ca, struct problem *why)
{
	struct tls *tls;
	int error;

	if (!load(why))
		return NULL;
	tls = calloc(1, sizeof(*tls));
	if (tls == NULL) {
		problem_set(why, "out of memory");
		return NULL;
	}
	error = library.allocate(&tls->credentials);
	if (error >= 0)
		/* Both return how many they took; none is a mistake of the admin's. */
		error = ca[0] == '\0' ? library.trust_system(tls->credentials)
				      : library.trust_file(tls->credentials, ca, GNUTLS_X509_FMT_PEM);
	if (error == 0) {
		problem_set(why, "no authority is trusted");
		tls_free(tls);
		return NULL;
	}
	if (error > 0)
		error = library.init(&tls->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (error >= 0)
		error = library.set_priority(tls->session, PRIORITY, NULL, 0);
	if (error >= 0)
		error = library.set_credentials(tls->session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
	if (error >= 0 && !is_address(host))
		error = library.set_name(tls->session, GNUTLS_NAME_DNS, host, strlen(host));
	if (error < 0) {
		problem_set(why, "%s", library.strerror(error));
		tls_free(tls);
		return NULL;
	}
	library.verify(tls->session, host, 0);
	library.set_fd(tls->session, fd, fd);
	return tls;
}

/* Say what an error means for who waits. */
static int result(const struct tls *tls, int error, struct problem *why)
{
	if (error == GNUTLS_E_AGAIN || error == GNUTLS_E_INTERRUPTED)
		return library.direction(tls->session) == 0 ? TLS_WANTS_READ : TLS_WANTS_WRITE;
	problem_set(why, "%s", library.strerror(error));
	return error == GNUTLS_E_PREMATURE_TERMINATION || error == GNUTLS_E_PULL_ERROR || error == GNUTLS_E_PUSH_ERROR
		       ? TLS_LOST
		       : TLS_REFUSED;
}

int tls_handshake(struct tls *tls, struct problem *why)
{
	int error = library.handshake(tls->session);

	return error >= 0 ? 0 : result(tls, error, why);
}

ssize_t tls_write(struct tls *tls, const char *data, size_t length, struct problem *why)
{
	ssize_t sent = library.send(tls->session, data, length);

	return sent >= 0 ? sent : result(tls, (int)sent, why);
}

ssize_t tls_read(struct tls *tls, char *data, size_t size, struct problem *why)
{
	ssize_t got = library.receive(tls->session, data, size);

	return got >= 0 ? got : result(tls, (int)got, why);
}

void tls_free(struct tls *tls)
{
	if (tls == NULL)
		return;
	if (tls->session != NULL)
		library.deinit(tls->session);
	if (tls->credentials != NULL)
		library.free(tls->credentials);
	free(tls);
}
