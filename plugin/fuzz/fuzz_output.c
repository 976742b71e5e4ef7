/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the helper says: root's slurmstepd sets it in the user's environment. */
#include "fuzz.h"
#include "output.h"

/* Of what a variable may not be made, whatever else is allowed: a name is one for every shell and linker. */
static void check_name(const char *name)
{
	static const char *const marks[] = {"QRMI_", "QISKIT_IBM_", "SLURM_JOB_QPU_", "IAM_URL", "GLOBAL_"};
	size_t length = strlen(name);
	bool marked = false;

	MUST(output_is_ours(name));
	MUST(length > 0 && (name[0] < '0' || name[0] > '9'));
	MUST(strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == length);
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++)
		marked |= strstr(name, marks[i]) != NULL;
	MUST(marked);
}

static size_t count_lines(const char *text)
{
	size_t lines = 0;

	for (size_t length; *text != '\0'; text += length + (text[length] == '\n')) {
		length = strcspn(text, "\n");
		lines += length > 0;
	}
	return lines;
}

/* Every line NAME=value that is taken stands in what was said, as it is. */
static void check_variable(const struct variable *variable, const char *said)
{
	size_t length = strlen(variable->name) + 1 + strlen(variable->value);
	char *line = malloc(length + 1);
	const char *found = said;

	MUST(line != NULL);
	check_name(variable->name);
	strcpy(line, variable->name);
	strcat(line, "=");
	strcat(line, variable->value);
	MUST(strchr(line, '\n') == NULL);
	while ((found = strstr(found, line)) != NULL &&
	       !((found == said || found[-1] == '\n') && (found[length] == '\n' || found[length] == '\0')))
		found++;
	MUST(found != NULL);
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size), *said = fuzz_text(data, size);
	bool cut = strlen(said) < size;
	struct problem why = {""};
	struct output output;

	if (output_is_wait(text, 75, &why)) {
		MUST(strncmp(said, "wait: ", strlen("wait: ")) == 0);
		fuzz_must_be_a_sentence(why.text);
	}
	if (output_parse(&output, text, size, &why)) {
		MUST(!cut);
		MUST(output.count + output.dropped <= count_lines(said));
		MUST(output.error != NULL || output.count + output.dropped == count_lines(said));
		MUST((output.dropped > 0) == (output.first_dropped != NULL));
		for (size_t i = 0; i < output.count; i++)
			check_variable(&output.variables[i], said);
		/* Both come after some words of the plugin's. */
		if (output.error != NULL)
			problem_set(&why, "-%s", output.error), fuzz_must_be_a_sentence(why.text);
		if (output.first_dropped != NULL)
			MUST(!output_is_ours(output.first_dropped));
	} else {
		MUST(output.count == 0 && output.variables == NULL && output.error == NULL);
		fuzz_must_be_a_sentence(why.text);
	}
	output_free(&output);
	free(said);
	free(text);
	return 0;
}
