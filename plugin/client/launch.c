/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/launch.h"

#include <string.h>

static char *trim(char *text)
{
	size_t length;

	text += strspn(text, " \t\r");
	for (length = strlen(text); length > 0 && strchr(" \t\r", text[length - 1]) != NULL; length--)
		text[length - 1] = '\0';
	return text;
}

bool launch_parse(struct launch *launch, char *text, size_t length, struct problem *why)
{
	const struct {
		const char *name;
		const char **value;
		bool path;
	} settings[] = {
		{"run", &launch->run, false},		  {"qpu_slurm", &launch->qpu_slurm, true},
		{"config", &launch->config, true},	  {"scontrol", &launch->scontrol, true},
		{"slurm_conf", &launch->slurm_conf, true}, {"gres_partitions", &launch->gres_partitions, false},
	};
	const size_t count = sizeof(settings) / sizeof(settings[0]);

	*launch = (struct launch){0};
	if (memchr(text, '\0', length) != NULL)
		return problem_set(why, "it contains a NUL");
	for (char *line; (line = strsep(&text, "\n")) != NULL;) {
		char *value, *name;
		size_t i = 0;

		line = trim(line);
		if (line[0] == '\0' || line[0] == '#')
			continue;
		value = strchr(line, '=');
		if (value == NULL)
			return problem_set(why, "'%s' is not NAME = VALUE", line);
		*value++ = '\0';
		name = trim(line);
		value = trim(value);
		while (i < count && strcmp(settings[i].name, name) != 0)
			i++;
		if (i == count || *settings[i].value != NULL)
			return problem_set(why, "'%s' is %s", name, i == count ? "not known" : "given twice");
		if (settings[i].path && value[0] != '/')
			return problem_set(why, "%s: '%s' is not an absolute path", name, value);
		*settings[i].value = value;
	}
	for (size_t i = 0; i < count; i++)
		if (*settings[i].value == NULL)
			return problem_set(why, "'%s' is missing", settings[i].name);
	return true;
}
