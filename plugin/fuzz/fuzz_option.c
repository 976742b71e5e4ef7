/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What users write behind --qpu, wishes among it. */
#include "fuzz.h"
#include "option.h"

static void check_names(const struct names *names, const char *value)
{
	for (size_t i = 0; i < names->count; i++) {
		const char *name = names->items[i];

		MUST(name_is_qpu(name) && strstr(value, name) != NULL);
		for (size_t j = 0; j < i; j++)
			MUST(strcmp(name, names->items[j]) != 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value = fuzz_text(data, size);
	struct problem why = {""};
	struct option option;

	if (!option_parse(&option, value, name_is_qpu, &why)) {
		MUST(option.text == NULL && option.named.items == NULL && option.offered.items == NULL && !option.any);
		MUST(strncmp(why.text, "--qpu: ", strlen("--qpu: ")) == 0);
		fuzz_must_be_a_sentence(why.text);
	} else {
		MUST(option.named.count > 0 || option_has_choice(&option));
		MUST(strlen(value) <= OPTION_LENGTH && option.named.count <= NAMES_MAX);
		/* Nothing in it means anything to a shell beyond what has to be quoted, or to a terminal. */
		MUST(strspn(value, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_,|:<>=!.*+-") ==
		     strlen(value));
		check_names(&option.named, value);
		check_names(&option.offered, value);
		option_free(&option);
	}
	free(value);
	return 0;
}
