/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "output.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "text.h"
#include "variables.h"

#define ERROR_PREFIX "error: "
#define WAIT_PREFIX "wait: "

/* `ibm_fez_QRMI_IBM_QRS_ENDPOINT`: QRMI's variables of one QPU begin with its name. */
static bool is_of_one_qpu(const char *name)
{
	static const char infix[] = "_QRMI_";

	if (strspn(name, LETTERS) == 0 || !text_is_made_of(name, LETTERS DIGITS "_"))
		return false;
	for (const char *found = strstr(name + 1, infix); found != NULL; found = strstr(found + 1, infix))
		if (text_is_made_of(found + strlen(infix), UPPER DIGITS "_"))
			return true;
	return false;
}

bool output_is_ours(const char *name)
{
	static const char *const prefixes[] = {"QISKIT_IBM_", "QRMI_JOB_", "SLURM_JOB_QPU_"};
	static const char *const whole[] = {
		"GLOBAL_CATALOG_URL", "GLOBAL_SEARCH_URL", "IAM_URL",
		"IQM_QUANTUM_COMPUTER", "IQM_SERVER_URL", "IQM_TOKEN",
	};

	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		size_t length = strlen(prefixes[i]);

		if (strncmp(name, prefixes[i], length) == 0)
			return text_is_made_of(name + length, UPPER DIGITS "_");
	}
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (strcmp(name, whole[i]) == 0)
			return true;
	return is_of_one_qpu(name);
}

bool output_is_trust(const char *name)
{
	return strcmp(name, TRUST_OF_PYTHON) == 0 || strcmp(name, TRUST_OF_OPENSSL) == 0;
}

static bool parse_line(struct output *output, char *line, struct problem *why)
{
	char *equals;

	if (strncmp(line, ERROR_PREFIX, strlen(ERROR_PREFIX)) == 0) {
		output->error = line + strlen(ERROR_PREFIX);
		text_make_printable(line);
		return true;
	}
	equals = strchr(line, '=');
	if (equals == NULL || equals == line)
		return problem_set(why, "its output has a line that is neither NAME=value nor an error");
	*equals = '\0';
	if (output_is_ours(line) || output_is_trust(line)) {
		output->variables[output->count++] = (struct variable){line, equals + 1};
	} else if (output->dropped++ == 0) {
		output->first_dropped = line;
		text_make_printable(line);
	}
	return true;
}

bool output_is_wait(const char *text, int exit_code, struct problem *sentence)
{
	const char *said = text + strlen(WAIT_PREFIX);

	if (exit_code != EX_TEMPFAIL || strncmp(text, WAIT_PREFIX, strlen(WAIT_PREFIX)) != 0 ||
	    strcspn(said, "\n") == 0)
		return false;
	problem_set(sentence, "%.*s", (int)strcspn(said, "\n"), said);
	return true;
}

bool output_parse(struct output *output, char *text, size_t length, struct problem *why)
{
	size_t lines = 1;

	*output = (struct output){0};
	if (memchr(text, '\0', length) != NULL)
		return problem_set(why, "its output contains a NUL");
	for (const char *c = text; *c != '\0'; c++)
		lines += *c == '\n';
	output->variables = calloc(lines, sizeof(*output->variables));
	if (output->variables == NULL)
		return problem_set(why, "out of memory");
	for (char *rest = text, *line; (line = strsep(&rest, "\n")) != NULL;) {
		if (line[0] != '\0' && !parse_line(output, line, why)) {
			output_free(output);
			return false;
		}
	}
	return true;
}

const char *output_value(const struct output *output, const char *name)
{
	for (size_t i = 0; i < output->count; i++)
		if (strcmp(output->variables[i].name, name) == 0)
			return output->variables[i].value;
	return NULL;
}

void output_free(struct output *output)
{
	free(output->variables);
	*output = (struct output){0};
}
