/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/answer.h"

#include <string.h>
#include <strings.h>

#include "text.h"

static const char *end_of_line(const char *line, const char *end)
{
	return memmem(line, (size_t)(end - line), "\r\n", 2);
}

/* `HTTP/1.1 200 OK` */
static bool read_status(int *status, const char *line, size_t length)
{
	if (length < 12 || memcmp(line, "HTTP/1.", 7) != 0 || line[8] != ' ' || (length > 12 && line[12] != ' '))
		return false;
	*status = 0;
	for (int i = 9; i < 12; i++) {
		if (line[i] < '0' || line[i] > '9')
			return false;
		*status = *status * 10 + (line[i] - '0');
	}
	return *status >= 200;
}

static bool read_number(size_t *number, const char *text, size_t length)
{
	*number = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9' || *number > ANSWER_LIMIT)
			return false;
		*number = *number * 10 + (size_t)(text[i] - '0');
	}
	return length > 0;
}

enum answer_state answer_parse(struct answer *answer, const char *data, size_t length)
{
	static const char plain[] = "text/plain";
	const char *end = data + length, *line = data, *eol;
	bool sized = false;
	size_t size = 0;

	*answer = (struct answer){0};
	/* What cannot become an answer is not waited for. */
	if (memcmp(data, "HTTP/1.", length < 7 ? length : 7) != 0)
		return ANSWER_STRANGE;
	for (bool first = true; (eol = end_of_line(line, end)) != line; first = false, line = eol + 2) {
		const char *colon, *value, *behind;

		if (eol == NULL)
			return length < ANSWER_LIMIT ? ANSWER_PARTIAL : ANSWER_STRANGE;
		if (first) {
			if (!read_status(&answer->status, line, (size_t)(eol - line)))
				return ANSWER_STRANGE;
			continue;
		}
		colon = memchr(line, ':', (size_t)(eol - line));
		if (colon == NULL)
			return ANSWER_STRANGE;
		for (value = colon + 1, behind = eol; value < behind && (*value == ' ' || *value == '\t');)
			value++;
		while (behind > value && (behind[-1] == ' ' || behind[-1] == '\t'))
			behind--;
#define IS(name) ((size_t)(colon - line) == strlen(name) && strncasecmp(line, name, strlen(name)) == 0)
		if (IS("Content-Length")) {
			if (sized || !read_number(&size, value, (size_t)(behind - value)))
				return ANSWER_STRANGE;
			sized = true;
		} else if (IS("Transfer-Encoding") || IS("Content-Encoding")) {
			return ANSWER_STRANGE;
		} else if (IS("Content-Type")) {
			answer->text = (size_t)(behind - value) >= strlen(plain) &&
				       strncasecmp(value, plain, strlen(plain)) == 0;
		}
#undef IS
	}
	if (answer->status == 0 || !sized || (size_t)(line + 2 - data) + size > ANSWER_LIMIT)
		return ANSWER_STRANGE;
	answer->body = line + 2;
	answer->length = size;
	return (size_t)(end - answer->body) < size ? ANSWER_PARTIAL : ANSWER_WHOLE;
}
