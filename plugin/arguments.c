/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "arguments.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

#define DEFAULT_HELPER "/opt/qpu_slurm/bin/qpu-slurm"
#define DEFAULT_CONFIG "/etc/qpu_slurm/config.toml"

enum { LONGEST_PATIENCE = 24 * 60 * 60 };

/* One argument: where it goes depends on what it is. */
struct parameter {
	const char *name;
	struct names *names; /* A list of names of this shape, or */
	name_shape *shape;
	const char **path;     /* an absolute path, or */
	unsigned long *seconds; /* a number of seconds. */
	bool given;
};

static bool parse_seconds(unsigned long *seconds, const char *name, const char *value, struct problem *why)
{
	/* What has more digits is too much, whatever they are. */
	if (text_is_made_of(value, DIGITS) && strlen(value) <= sizeof("86400") - 1)
		*seconds = strtoul(value, NULL, 10);
	else
		*seconds = LONGEST_PATIENCE + 1;
	return *seconds <= LONGEST_PATIENCE ||
	       problem_set(why, "%s: '%s' is not a number of seconds from 0 to %d", name, value, LONGEST_PATIENCE);
}

static bool parse_one(struct parameter *parameter, const char *value, struct problem *why)
{
	if (parameter->given)
		return problem_set(why, "the argument %s is given twice", parameter->name);
	parameter->given = true;
	if (parameter->names != NULL)
		return names_parse(parameter->names, parameter->name, value, parameter->shape, SIZE_MAX, why);
	if (parameter->seconds != NULL)
		return parse_seconds(parameter->seconds, parameter->name, value, why);
	if (value[0] != '/')
		return problem_set(why, "%s: '%s' is not an absolute path", parameter->name, value);
	*parameter->path = value;
	return true;
}

bool arguments_parse(struct arguments *arguments, int argc, char *const argv[], struct problem *why)
{
	struct parameter parameters[] = {
		{.name = "qpus", .names = &arguments->qpus, .shape = name_is_qpu},
		{.name = "user_credentials", .names = &arguments->user_credentials, .shape = name_is_qpu},
		{.name = "gres_partitions", .names = &arguments->gres_partitions, .shape = name_is_partition},
		{.name = "step_patience", .seconds = &arguments->step_patience},
		{.name = "helper", .path = &arguments->helper},
		{.name = "config", .path = &arguments->config},
	};
	const size_t count = sizeof(parameters) / sizeof(parameters[0]);

	*arguments = (struct arguments){.helper = DEFAULT_HELPER, .config = DEFAULT_CONFIG};
	for (int i = 0; i < argc; i++) {
		const char *equals = strchr(argv[i], '=');
		size_t length = equals == NULL ? 0 : (size_t)(equals - argv[i]);
		struct parameter *parameter = parameters;

		while (parameter < parameters + count &&
		       (strlen(parameter->name) != length || strncmp(parameter->name, argv[i], length) != 0))
			parameter++;
		if (parameter == parameters + count) {
			problem_set(why, "'%s' is not an argument of this plugin", argv[i]);
			goto fail;
		}
		if (!parse_one(parameter, equals + 1, why))
			goto fail;
	}
	if (arguments->qpus.count == 0) {
		problem_set(why, "the argument qpus is missing");
		goto fail;
	}
	for (size_t i = 0; i < arguments->user_credentials.count; i++) {
		const char *name = arguments->user_credentials.items[i];

		if (!names_contain(&arguments->qpus, name)) {
			problem_set(why, "user_credentials: '%s' is not one of qpus", name);
			goto fail;
		}
	}
	return true;
fail:
	arguments_free(arguments);
	return false;
}

void arguments_free(struct arguments *arguments)
{
	names_free(&arguments->qpus);
	names_free(&arguments->user_credentials);
	names_free(&arguments->gres_partitions);
	*arguments = (struct arguments){0};
}
