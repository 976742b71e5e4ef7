/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a user's step runs: its arguments, each with a NUL behind it. */
#include "fuzz.h"
#include "step.h"
#include "text.h"

enum { MAX = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *argv[MAX], name[STEP_NAME_LENGTH + 1], again[STEP_NAME_LENGTH + 1];
	int argc = 0;

	/* Each in memory of its own. */
	while (argc < MAX && size > 0) {
		size_t length = strnlen((const char *)data, size);

		argv[argc++] = fuzz_text(data, length);
		length += length < size;
		data += length;
		size -= length;
	}
	memset(name, 'x', sizeof(name));
	step_name(name, argc, argv);
	MUST(memchr(name, '\0', sizeof(name)) != NULL);
	MUST(text_is_made_of(name, LETTERS DIGITS "._+-"));
	if (argc == 1 && strlen(argv[0]) <= STEP_NAME_LENGTH && text_is_made_of(argv[0], LETTERS "_"))
		MUST(strcmp(name, argv[0]) == 0);
	/* What is a name already stays one. */
	step_name(again, 1, (char *[]){name});
	MUST(strcmp(name, again) == 0);
	for (int i = 0; i < argc; i++)
		free(argv[i]);
	return 0;
}
