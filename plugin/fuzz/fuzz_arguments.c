/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the admin wrote in plugstack.conf: an argument a line. */
#include "arguments.h"
#include "fuzz.h"

enum { MAX = 32 };

static void check_accepted(const struct arguments *arguments)
{
	MUST(arguments->qpus.count > 0);
	for (size_t i = 0; i < arguments->qpus.count; i++)
		MUST(name_is_qpu(arguments->qpus.items[i]));
	for (size_t i = 0; i < arguments->user_credentials.count; i++)
		MUST(names_contain(&arguments->qpus, arguments->user_credentials.items[i]));
	for (size_t i = 0; i < arguments->gres_partitions.count; i++)
		MUST(name_is_partition(arguments->gres_partitions.items[i]));
	/* What is run as root. */
	MUST(arguments->helper[0] == '/' && arguments->config[0] == '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct arguments none;
	char *text = fuzz_text(data, size), *rest = text, *argument;
	struct arguments arguments;
	struct problem why = {""};
	char *argv[MAX];
	int argc = 0;

	while (argc < MAX && (argument = strsep(&rest, "\n")) != NULL)
		argv[argc++] = argument;
	if (arguments_parse(&arguments, argc, argv, &why)) {
		check_accepted(&arguments);
	} else {
		MUST(memcmp(&arguments, &none, sizeof(none)) == 0);
		fuzz_must_be_a_sentence(why.text);
	}
	arguments_free(&arguments);
	free(text);
	return 0;
}
