/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a server answers that the client takes for the gateway. */
#include "client/answer.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = calloc(1, size == 0 ? 1 : size);
	struct answer answer, cut;
	enum answer_state state;

	MUST(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	state = answer_parse(&answer, text, size);
	if (state == ANSWER_WHOLE) {
		MUST(answer.status >= 200 && answer.status <= 999);
		MUST(answer.body >= text && answer.length <= (size_t)(text + size - answer.body));
		/* What comes behind it changes nothing, and without its last byte it is not all. */
		MUST(answer_parse(&cut, text, (size_t)(answer.body - text) + answer.length) == ANSWER_WHOLE);
		MUST(cut.body == answer.body && cut.length == answer.length && cut.status == answer.status);
		MUST(answer_parse(&cut, text, (size_t)(answer.body - text) + answer.length - 1) == ANSWER_PARTIAL);
	}
	if (state == ANSWER_PARTIAL)
		MUST(size < ANSWER_LIMIT);
	free(text);
	return 0;
}
