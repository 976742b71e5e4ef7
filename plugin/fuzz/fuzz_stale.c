/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A step's own variables: what is taken out of a user's environment. The first line is a list of QPUs. */
#include "fuzz.h"
#include "output.h"
#include "stale.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *rest = text;
	const char *list = strsep(&rest, "\n");
	struct problem why = {""};
	struct names qpus;

	if (rest != NULL && names_parse(&qpus, "qpus", list, name_is_qpu, NAMES_MAX, &why)) {
		/* What is no variable of ours is never taken away, and a list of QPUs only ever allows more. */
		MUST(!stale_is(rest, &qpus, true) || output_is_ours(rest));
		MUST(!stale_is(rest, &qpus, false) || stale_is(rest, &qpus, true));
		names_free(&qpus);
	}
	free(text);
	return 0;
}
