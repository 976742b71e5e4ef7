/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/connection.h"

#include <errno.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/tls.h"
#include "clock.h"

static enum connection_result away(struct problem *why, int error)
{
	problem_set(why, "%s", strerror(error));
	return CONNECTION_AWAY;
}

/* Milliseconds until a moment, as poll takes them; 0 if it is over. */
static int left(int64_t until)
{
	int64_t milliseconds = until - clock_now();

	return milliseconds < 0 ? 0 : milliseconds > INT_MAX ? INT_MAX : (int)milliseconds;
}

static enum connection_result wait_for(const struct connection *connection, short events, int64_t until,
				       struct problem *why)
{
	struct pollfd wait = {.fd = connection->fd, .events = events};

	for (;;) {
		int ready = poll(&wait, 1, left(until));

		if (ready > 0)
			return CONNECTION_FINE;
		if (ready == 0)
			return away(why, ETIMEDOUT);
		if (errno != EINTR)
			return away(why, errno);
	}
}

/* Find the host's addresses. A literal one needs none of the resolver's files and servers. */
static struct addrinfo *resolve(const struct config *config, enum connection_result *result, struct problem *why)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *found = NULL;
	int error = getaddrinfo(config->host, config->port, &hints, &found);

	if (error == EAI_NONAME) {
		hints.ai_flags = AI_NUMERICSERV;
		error = getaddrinfo(config->host, config->port, &hints, &found);
	}
	if (error == 0)
		return found;
	problem_set(why, "%s", gai_strerror(error));
	*result = CONNECTION_AWAY;
	return NULL;
}

static enum connection_result connect_to(struct connection *connection, const struct addrinfo *address, int64_t until,
					 struct problem *why)
{
	enum connection_result result;
	const int yes = 1;
	int error = 0;
	socklen_t size = sizeof(error);

	connection->fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, address->ai_protocol);
	if (connection->fd < 0)
		return away(why, errno);
	/* Without it, the second part of a TLS handshake waits for the answer to the first. */
	(void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	if (connect(connection->fd, address->ai_addr, address->ai_addrlen) == 0)
		return CONNECTION_FINE;
	result = errno == EINPROGRESS ? wait_for(connection, POLLOUT, until, why) : away(why, errno);
	if (result == CONNECTION_FINE && getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
		error = errno;
	return error == 0 ? result : away(why, error);
}

/* Wait for what TLS wants, or say how it ended. */
static enum connection_result wait_for_tls(const struct connection *connection, ssize_t what, int64_t until,
					   struct problem *why)
{
	if (what == TLS_WANTS_READ || what == TLS_WANTS_WRITE)
		return wait_for(connection, what == TLS_WANTS_READ ? POLLIN : POLLOUT, until, why);
	return what == TLS_LOST ? CONNECTION_AWAY : CONNECTION_BROKEN;
}

static enum connection_result secure(struct connection *connection, const struct config *config, int64_t until,
				     struct problem *why)
{
	enum connection_result result = CONNECTION_FINE;
	int step;

	connection->tls = tls_new(connection->fd, config->host, config->ca, why);
	if (connection->tls == NULL)
		return CONNECTION_BROKEN;
	while (result == CONNECTION_FINE && (step = tls_handshake(connection->tls, why)) != 0)
		result = wait_for_tls(connection, step, until, why);
	return result;
}

enum connection_result connection_open(struct connection *connection, const struct config *config, int64_t until,
				       struct problem *why)
{
	enum connection_result result = CONNECTION_AWAY;
	struct addrinfo *found;

	*connection = (struct connection){.fd = -1};
	found = resolve(config, &result, why);
	for (const struct addrinfo *address = found; address != NULL; address = address->ai_next) {
		result = connect_to(connection, address, until, why);
		if (result == CONNECTION_FINE)
			break;
		connection_close(connection);
	}
	if (found != NULL)
		freeaddrinfo(found);
	return result == CONNECTION_FINE && config->tls ? secure(connection, config, until, why) : result;
}

enum connection_result connection_send(struct connection *connection, const char *data, size_t length, int64_t until,
				       struct problem *why)
{
	enum connection_result result = CONNECTION_FINE;

	while (length > 0 && result == CONNECTION_FINE) {
		ssize_t sent = connection->tls != NULL ? tls_write(connection->tls, data, length, why)
						       : send(connection->fd, data, length, MSG_NOSIGNAL);

		if (sent >= 0) {
			data += sent;
			length -= (size_t)sent;
		} else if (connection->tls != NULL) {
			result = wait_for_tls(connection, sent, until, why);
		} else if (errno == EAGAIN) {
			result = wait_for(connection, POLLOUT, until, why);
		} else if (errno != EINTR) {
			result = away(why, errno);
		}
	}
	return result;
}

enum connection_result connection_receive(struct connection *connection, char *data, size_t size, size_t *got,
					  int64_t until, struct problem *why)
{
	enum connection_result result = CONNECTION_FINE;

	while (result == CONNECTION_FINE) {
		ssize_t received = connection->tls != NULL ? tls_read(connection->tls, data, size, why)
							   : recv(connection->fd, data, size, 0);

		if (received >= 0) {
			*got = (size_t)received;
			return CONNECTION_FINE;
		}
		if (connection->tls != NULL)
			result = wait_for_tls(connection, received, until, why);
		else if (errno == EAGAIN)
			result = wait_for(connection, POLLIN, until, why);
		else if (errno != EINTR)
			result = away(why, errno);
	}
	return result;
}

void connection_close(struct connection *connection)
{
	tls_free(connection->tls);
	if (connection->fd >= 0)
		close(connection->fd);
	*connection = (struct connection){.fd = -1};
}
