/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "environment.h"

#include <stdlib.h>
#include <string.h>

#include "stale.h"
#include "variables.h"

bool environment_has(spank_t spank, const char *name)
{
	char value[2] = ""; /* What does not fit is cut, and said so: set it is. */

	return spank_getenv(spank, name, value, sizeof(value)) != ESPANK_ENV_NOEXIST && value[0] != '\0';
}

static void unset_stale(spank_t spank, const struct output *output, const struct names *qpus)
{
	bool inherited = environment_has(spank, JOB_RESOURCES);
	char **env = NULL;

	if (output->count == 0 && !(inherited && environment_has(spank, ATTACHED)))
		return; /* What is there is the user's own. */
	if (spank_get_item(spank, S_JOB_ENV, &env) != ESPANK_SUCCESS || env == NULL)
		return;
	for (size_t i = 0; env[i] != NULL;) {
		const char *equals = strchr(env[i], '=');
		char *name = equals == NULL ? NULL : strndup(env[i], (size_t)(equals - env[i]));

		/* The rest of the list moves up: the next one is then at this place. */
		if (name == NULL || !stale_is(name, qpus, inherited) || output_value(output, name) != NULL ||
		    spank_unsetenv(spank, name) != ESPANK_SUCCESS)
			i++;
		free(name);
	}
}

static const char *set_all(spank_t spank, const struct output *output)
{
	for (size_t i = 0; i < output->count; i++) {
		const struct variable *variable = &output->variables[i];

		if (!(output_is_trust(variable->name) && environment_has(spank, variable->name)) &&
		    spank_setenv(spank, variable->name, variable->value, 1) != ESPANK_SUCCESS)
			return variable->name;
	}
	return NULL;
}

const char *environment_update(spank_t spank, const struct output *output, const struct names *qpus)
{
	unset_stale(spank, output, qpus);
	return set_all(spank, output);
}
