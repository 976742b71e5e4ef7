/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stale.h"

#include <string.h>

#include "text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_one_of(const char *name, const char *const names[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

/* What follows a QPU's name in `<name>_QRMI_…`, or NULL for any other variable. */
static const char *of_qpu(const char *name, const struct names *qpus)
{
	static const char infix[] = "_QRMI_";

	for (size_t i = 0; i < qpus->count; i++) {
		size_t length = strlen(qpus->items[i]);

		if (strncmp(name, qpus->items[i], length) == 0 &&
		    strncmp(name + length, infix, strlen(infix)) == 0)
			return name + length + strlen(infix);
	}
	return NULL;
}

bool stale_is(const char *name, const struct names *qpus, bool inherited)
{
	static const char *const of_users[] = {
		"IBM_QCS_SESSION_ID",
		"IBM_QCS_TIMEOUT_SECONDS",
		"IBM_QRS_SESSION_ID",
		"IBM_QRS_TIMEOUT_SECONDS",
	};
	static const char *const of_job[] = {
		"GLOBAL_CATALOG_URL",	   "GLOBAL_SEARCH_URL",	     "IAM_URL",
		"IQM_QUANTUM_COMPUTER",	   "IQM_SERVER_URL",	     "IQM_TOKEN",
		"QISKIT_IBM_CHANNEL",	   "QISKIT_IBM_INSTANCE",    "QISKIT_IBM_TOKEN",
		"QISKIT_IBM_URL",	   "QRMI_JOB_QPU_RESOURCES", "QRMI_JOB_QPU_TYPES",
		"SLURM_JOB_QPU_RESOURCES", "SLURM_JOB_QPU_TYPES",
	};
	const char *suffix = of_qpu(name, qpus);

	if (suffix != NULL)
		return text_is_made_of(suffix, UPPER DIGITS "_") &&
		       !is_one_of(suffix, of_users, COUNT(of_users));
	return inherited && is_one_of(name, of_job, COUNT(of_job));
}
