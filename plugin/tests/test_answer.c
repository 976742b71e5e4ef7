/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "client/answer.h"

#define OK "HTTP/1.1 200 OK\r\n"

static const struct {
	const char *text;
	enum answer_state state;
	int status;
	bool plain;
	const char *body;
} cases[] = {
	{OK "Content-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nab", ANSWER_WHOLE, 200, true, "ab"},
	{"HTTP/1.0 409 \r\ncontent-length:0\r\n\r\n", ANSWER_WHOLE, 409, false, ""},
	{"HTTP/1.1 409\r\nContent-Length: \t0 \r\nX: a:b\r\n\r\n", ANSWER_WHOLE, 409, false, ""},
	{OK "Content-Length: 3\r\n\r\nab", ANSWER_PARTIAL, 0, false, NULL},
	{OK "Content-Len", ANSWER_PARTIAL, 0, false, NULL},
	{"HT", ANSWER_PARTIAL, 0, false, NULL},
	{"", ANSWER_PARTIAL, 0, false, NULL},
	{"ICY 200 OK\r\n", ANSWER_STRANGE, 0, false, NULL},
	{"HTTP/2 200\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{"HTTP/1.1 2x0 OK\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{"HTTP/1.1 2000 OK\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{"HTTP/1.1 100 Continue\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "\r\n", ANSWER_STRANGE, 0, false, NULL},
	{"\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", ANSWER_STRANGE, 0, false, NULL},
	{OK "Content-Length: -1\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "Content-Length: 99999999999999999999\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "Content-Length: 81920\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "Content-Length:\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
	{OK "no colon\r\n\r\n", ANSWER_STRANGE, 0, false, NULL},
};

int main(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *text = cases[i].text;
		struct answer answer;

		CHECK(answer_parse(&answer, text, strlen(text)) == cases[i].state, text);
		if (cases[i].state != ANSWER_WHOLE)
			continue;
		CHECK(answer.status == cases[i].status, text);
		CHECK(answer.text == cases[i].plain, text);
		CHECK(answer.length == strlen(cases[i].body), text);
		CHECK(memcmp(answer.body, cases[i].body, answer.length) == 0, text);
		/* As long as it comes, more is waited for. */
		for (size_t length = 0; length < strlen(text); length++)
			CHECK(answer_parse(&answer, text, length) == ANSWER_PARTIAL, text);
	}
	return 0;
}
