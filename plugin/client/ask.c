/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/connection.h"
#include "client/proof.h"
#include "client/sha256.h"
#include "clock.h"

enum { CONNECT = 3000, PAUSE = 100, HEAD = 8192 };

static char received[ANSWER_LIMIT];
static size_t used;

void ask_wipe(void)
{
	explicit_bzero(received, used);
	used = 0;
}

/* What the proof holds makes it good for one request alone; see messages.py, `binding`. */
static char *prove(const struct config *config, const struct question *question, struct problem *why)
{
	char digits[SHA256_DIGITS + 1], payload[HEAD];
	int length;

	sha256_digits(digits, question->body, question->length);
	length = snprintf(payload, sizeof(payload), "%s %s %s", question->method, question->path, digits);
	if (length < 0 || (size_t)length >= sizeof(payload)) {
		problem_set(why, "the path is too long");
		return NULL;
	}
	return proof_make(config->munge_socket, payload, why);
}

static enum connection_result send_question(struct connection *connection, const struct config *config,
					    const struct question *question, int64_t until, struct problem *why)
{
	enum connection_result result;
	char *proof = prove(config, question, why), head[HEAD];
	int length;

	if (proof == NULL)
		return CONNECTION_BROKEN;
	length = snprintf(head, sizeof(head),
			  "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: qpu-slurm-client/" VERSION
			  "\r\nAuthorization: MUNGE %s\r\n"
			  "Content-Type: application/octet-stream\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
			  question->method, question->path, strstr(config->origin, "://") + 3, proof, question->length);
	explicit_bzero(proof, strlen(proof));
	free(proof);
	if (length < 0 || (size_t)length >= sizeof(head)) {
		problem_set(why, "the request is too long");
		return CONNECTION_BROKEN;
	}
	result = connection_send(connection, head, (size_t)length, until, why);
	explicit_bzero(head, sizeof(head));
	if (result == CONNECTION_FINE)
		result = connection_send(connection, question->body, question->length, until, why);
	return result;
}

static enum connection_result receive_answer(struct connection *connection, struct answer *answer, int64_t until,
					     struct problem *why)
{
	enum answer_state state = ANSWER_PARTIAL;

	ask_wipe();
	while (state == ANSWER_PARTIAL && used < sizeof(received)) {
		size_t got = 0;
		enum connection_result result = connection_receive(connection, received + used, sizeof(received) - used,
								   &got, until, why);

		if (result != CONNECTION_FINE)
			return result;
		if (got == 0) {
			problem_set(why, "the connection was closed");
			return CONNECTION_AWAY;
		}
		used += got;
		state = answer_parse(answer, received, used);
	}
	if (state == ANSWER_WHOLE)
		return CONNECTION_FINE;
	problem_set(why, "the answer is not a gateway's");
	return CONNECTION_BROKEN;
}

static enum connection_result try_once(struct answer *answer, const struct config *config,
				       const struct question *question, int64_t until, struct problem *why)
{
	int64_t connected = clock_now() + CONNECT;
	struct connection connection;
	enum connection_result result =
		connection_open(&connection, config, connected < until ? connected : until, why);

	if (result == CONNECTION_FINE)
		result = send_question(&connection, config, question, until, why);
	if (result == CONNECTION_FINE)
		result = receive_answer(&connection, answer, until, why);
	connection_close(&connection);
	return result;
}

enum ask_result ask(struct answer *answer, const struct config *config, const struct question *question,
		    struct patience patience, struct problem *why)
{
	int64_t until = clock_now() + patience.answer, give_up = 0;

	for (;;) {
		struct problem reason;

		switch (try_once(answer, config, question, until, &reason)) {
		case CONNECTION_FINE:
			return ASK_ANSWERED;
		case CONNECTION_BROKEN:
			*why = reason;
			return ASK_BROKEN;
		default:
			problem_set(why, "The gateway %s does not answer: %s.", config->origin, reason.text);
		}
		if (give_up == 0) {
			give_up = clock_now() + patience.away;
			if (give_up > until)
				give_up = until;
		}
		if (clock_now() + PAUSE >= give_up)
			return ASK_AWAY;
		clock_sleep(PAUSE);
	}
}
